/* Fences and leases (rules R9, R12, R13): one copyset, two stores that may lead it, an old and a new holder of
 * a volume, and the metaserver.
 *
 * The log of the copyset is one list: what elections guarantee is in election.pml. Store 0 leads first; store 1
 * may be elected once, after the lease of store 0 has ended. Both go on believing that they lead until they
 * learn better. Everything between two steps may take any time: frames are delayed, stores are paused.
 *
 * The old holder has epoch 1. The metaserver gives the new holder epoch 2: it orders a fence of whoever
 * leads, and answers the attach when the fence is committed and applied there.
 *
 * Checked: after the attach is answered, nothing that epoch 1 sent changes the volume, and no read of epoch 1
 * is answered; a read of epoch 2 sees every write of epoch 2 that was acknowledged before it began.
 * Deliberate bugs, each must be found: see tools/model.
 */
#define SIZE 6
mtype = { none, write1, write2, fence, noop };
mtype log[SIZE];     /* committed or on its way: proposed by whoever led */
byte size = 0;       /* entries proposed */
byte committed = 0;
byte leader = 0;     /* whose entries can still commit: 0, then 1 */
bool leads[2];       /* believes it */
bool lease[2];       /* holds a lease */
byte applied[2];     /* through which entry */
byte floor[2];       /* of the volume, as applied */
byte value[2];       /* last write that took effect there */
byte ready[2];       /* applied through this, it may serve: its no-op */

/* ghosts */
bool attached = false;  /* the attach of epoch 2 has been answered */
byte acknowledged = 0;  /* 2: a write of epoch 2 was acknowledged */

inline propose(s, what) { log[size] = what; size++ }

proctype Store(byte s) {
end:
  do
  /* applies the next committed entry, in order */
  :: atomic { applied[s] < committed ->
       if
       :: log[applied[s]] == fence -> floor[s] = 2
#ifdef FENCE_AT_ACCEPTANCE_ONLY
       :: log[applied[s]] == write1 ->
#else
       :: log[applied[s]] == write1 && floor[s] <= 1 ->
#endif
          value[s] = 1;
          assert(floor[s] <= 1)  /* R12: no effect behind the fence */
       :: log[applied[s]] == write2 -> value[s] = 2
       :: else  /* also a refused write */
       fi;
       applied[s]++
     }
  od
}

/* Commits what the present leader proposed; elects store 1 once. */
proctype Copyset() {
end:
  do
  :: atomic { committed < size -> committed++ }
  /* the lease of store 0 ends */
  :: atomic { lease[0] && leader == 0 -> lease[0] = false }
  /* it is renewed while nobody else was elected */
  :: atomic { !lease[0] && leader == 0 -> lease[0] = true }
  /* an election: a majority has promised nothing any more; what is not committed may be lost or stay */
  :: atomic { leader == 0 && size < SIZE &&
#ifndef VOTE_DURING_LEASE
       !lease[0] &&
#endif
       true ->
       leader = 1; leads[1] = true; lease[1] = true;
       if
       :: size > committed -> size--; log[size] = none
       :: true
       fi;
       propose(1, noop);
       ready[1] = size
     }
  /* store 0 hears of it */
  :: atomic { leader == 1 && leads[0] -> leads[0] = false }
  od
}

#ifdef SERVE_BEFORE_NOOP
#define MAY_SERVE(s) leads[s]
#else
#define MAY_SERVE(s) (leads[s] && applied[s] >= ready[s])
#endif

/* The old holder: writes and reads for ever, sent to any store that believes that it leads. */
proctype Old() {
  byte s, got;
  bool checked;
end:
  do
  /* a write is accepted by the leader whose entries can commit (another one's never do) */
  :: atomic { size < SIZE && MAY_SERVE(leader) && floor[leader] <= 1 -> propose(leader, write1) }
  /* a read is accepted */
  :: atomic {
       if :: s = 0 :: s = 1 fi;
       if
       :: MAY_SERVE(s) && floor[s] <= 1 && (lease[s]) -> checked = true
       :: else -> checked = false
       fi
     };
     if
     :: checked ->
        atomic { got = value[s] };  /* the disk takes its time */
        atomic {
          /* and is answered */
          if
#ifdef LEASE_AT_START_ONLY
          :: floor[s] <= 1 -> assert(!attached)
#else
#ifdef FENCE_NOT_AT_ANSWER
          :: leads[s] && lease[s] -> assert(!attached)
#else
          :: leads[s] && lease[s] && floor[s] <= 1 -> assert(!attached)
#endif
#endif
          :: else
          fi;
          got = 0; checked = false; s = 0
        }
     :: else -> s = 0
     fi
  od
}

/* The metaserver attaches epoch 2; then its holder writes once and reads. */
proctype New() {
  byte s, at, got;
  bool known;
  /* the fence goes to the leader, and may be lost with it: it is ordered again until it is applied */
  do
  :: atomic { size < SIZE && leads[leader] -> propose(leader, fence) }
  :: atomic { floor[leader] == 2 && leads[leader] -> break }
#ifdef ATTACH_BEFORE_APPLIED
  :: atomic { size > 0 && log[size - 1] == fence -> break }
#endif
  od;
  attached = true;
  /* a write, acknowledged when it is applied by the leader */
  atomic { size < SIZE && MAY_SERVE(leader) -> propose(leader, write2); at = size };
  if
  :: atomic { leads[leader] && applied[leader] >= at && log[at - 1] == write2 -> acknowledged = 2 };
     /* a read that begins now */
     do
     :: atomic {
          if :: s = 0 :: s = 1 fi;
          if
          :: MAY_SERVE(s) && lease[s] -> known = true
          :: else -> known = false
          fi
        };
        if
        :: known ->
           atomic { got = value[s] };
           atomic {
             if
#ifdef LEASE_AT_START_ONLY
             :: true -> assert(got == 2)
#else
             :: leads[s] && lease[s] -> assert(got == 2)
#endif
             :: else
             fi;
             got = 0
           }
        :: else
        fi
     od
  fi
}

init {
  atomic {
    leads[0] = true; lease[0] = true;
    run Store(0); run Store(1); run Copyset(); run Old(); run New()
  }
}
