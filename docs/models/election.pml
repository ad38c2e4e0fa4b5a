/* Elections, durability and damage (rules R1, R2, R3, R10): three replicas, small terms, short logs.
 *
 * A log is the sequence of the terms of its entries. What a replica says (a vote, an acknowledgement) takes
 * effect at once at whoever asked: delay in the network is a step that is taken later, and what arrives in a
 * term that is over is ignored by both sides. What is durable is kept apart from what is in memory; a crash
 * goes back to it. At most one replica is ever damaged: it loses any part of its log, its vote and its term,
 * and knows that it may have (docs/decisions/0008).
 *
 * Checked: one leader per term; a leader has every committed entry; committed entries never change.
 * Deliberate bugs, each must be found: see tools/model.
 */
#ifndef MAXTERM
#define MAXTERM 3
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
#ifndef MAXFILL
#define MAXFILL 0
#endif
#ifndef MAXDAMAGE
#define MAXDAMAGE 0
#endif
#define MAXLEN 3
#define N 3
#define NONE 7
#define FOLLOWER 0
#define CANDIDATE 1
#define LEADER 2

typedef Log { byte size; byte term[MAXLEN] };
typedef Hard { byte term; byte vote; Log log };

Hard mem[N];   /* what the replica works with */
Hard disk[N];  /* what it will find after a crash */
byte role[N];
bool damaged[N];
bool filling[N];    /* R10: is being filled, acknowledges nothing */
byte votes[N];      /* of a candidate: bit per voter */
byte heard[N];      /* bit per member that it has heard to be damaged */
byte knew[N];       /* of a candidate or leader: what it had heard before it asked for the votes of its term */
byte match_of[9];   /* MATCH(leader, follower): what it has acknowledged, durably */
byte damages = 0, crashes = 0, fillings = 0;

/* ghosts */
byte leader_of[MAXTERM + 1];
Log committed;
byte committed_in[MAXLEN];  /* the term of the leader that committed it */

#define MATCH(i, j) match_of[(i) * N + (j)]
#define BIT(j) (1 << (j))
#define LAST(l) (l.size == 0 -> 0 : l.term[l.size - 1])
#define COUNT(v) (((v) & 1) + (((v) >> 1) & 1) + (((v) >> 2) & 1))

/* at least as good: the log of i, for a vote of j */
#define UP_TO_DATE(i, j) (LAST(mem[i].log) > LAST(mem[j].log) || \
  (LAST(mem[i].log) == LAST(mem[j].log) && mem[i].log.size >= mem[j].log.size))

#define copy_log(to, from) \
  to.size = from.size; to.term[0] = from.term[0]; to.term[1] = from.term[1]; to.term[2] = from.term[2]

inline persist(who) {
  disk[who].term = mem[who].term;
  disk[who].vote = mem[who].vote;
  copy_log(disk[who].log, mem[who].log)
}

inline step_down(whom) {
  role[whom] = FOLLOWER; votes[whom] = 0; knew[whom] = 0;
  MATCH(whom, 0) = 0; MATCH(whom, 1) = 0; MATCH(whom, 2) = 0
}

/* What others know of the damage ends with it. */
#define FORGET(i, who) heard[i] = heard[i] & ~BIT(who); knew[i] = knew[i] & ~BIT(who)
inline whole(who) {
  damaged[who] = false;
  FORGET(0, who); FORGET(1, who); FORGET(2, who)
}

/* A newer term is taken over durably (R2). */
inline raise(who, newer) {
  if
  :: newer > mem[who].term -> mem[who].term = newer; mem[who].vote = NONE; step_down(who)
  :: else
  fi
}

#define ANY_DAMAGED (damaged[0] || damaged[1] || damaged[2])

proctype Replica(byte i) {
  byte j, n, c;
end:
  do
  /* stands for election; a leader that hears of a damage that it did not know of makes itself a new term */
  :: atomic { mem[i].term < MAXTERM && !filling[i] && (role[i] != LEADER || (heard[i] & ~knew[i])) ->
       step_down(i);
       mem[i].term++; mem[i].vote = i; role[i] = CANDIDATE; votes[i] = BIT(i);
       if :: damaged[i] -> heard[i] = heard[i] | BIT(i) :: else fi;
       knew[i] = heard[i];
       persist(i);
       printf("%d stands in term %d, knows %d\n", i, mem[i].term, knew[i])
     }

  /* asks j for its vote */
  :: atomic { role[i] == CANDIDATE ->
       select(j : 0 .. 2);
       if
       :: j != i && mem[j].term <= mem[i].term ->
          raise(j, mem[i].term);
          if
#ifdef VOTE_TWICE
          :: UP_TO_DATE(i, j) ->
#else
          :: UP_TO_DATE(i, j) && (mem[j].vote == NONE || mem[j].vote == i) ->
#endif
             mem[j].vote = i;
#ifndef VOTE_BEFORE_DURABLE
             persist(j);
#endif
             votes[i] = votes[i] | BIT(j);
             printf("%d votes for %d in term %d\n", j, i, mem[i].term);
             if :: damaged[j] -> heard[i] = heard[i] | BIT(j) :: else fi
          :: else
          fi
       :: else
       fi; j = 0
     }

  /* hears that another is damaged: in a pre-vote, in a refused vote, in an answer to an append */
  :: atomic { ANY_DAMAGED ->
       j = 0; do :: damaged[j] -> break :: else -> j++ od;
       heard[i] = heard[i] | BIT(j);
#ifdef HEARD_AFTER_VOTES
       if :: role[i] == CANDIDATE -> knew[i] = heard[i] :: else fi;
#endif
       j = 0
     }

  /* has a majority of whole members, or everybody's vote */
  :: atomic { role[i] == CANDIDATE && mem[i].log.size < MAXLEN &&
#ifdef DAMAGED_VOTES
       COUNT(votes[i]) >= 2
#else
       (COUNT(votes[i] & ~heard[i]) >= 2 || COUNT(votes[i]) == N)
#endif
       ->
       assert(leader_of[mem[i].term] == NONE || leader_of[mem[i].term] == i);
       leader_of[mem[i].term] = i;
       printf("%d leads term %d\n", i, mem[i].term);
       c = 0;
       do  /* leader completeness */
       :: c < committed.size ->
          assert(committed_in[c] >= mem[i].term ||
                 (c < mem[i].log.size && mem[i].log.term[c] == committed.term[c]));
          c++
       :: else -> break
       od;
       if
       :: damaged[i] -> whole(i)  /* the best log there is */
       :: else
       fi;
       role[i] = LEADER; votes[i] = 0; c = 0;
       mem[i].log.term[mem[i].log.size] = mem[i].term;  /* its no-op */
       mem[i].log.size++
     }

  /* takes a proposal */
  :: atomic { role[i] == LEADER && mem[i].log.size < MAXLEN ->
       mem[i].log.term[mem[i].log.size] = mem[i].term; mem[i].log.size++;
       printf("%d appends in term %d\n", i, mem[i].term)
     }

  /* what is in memory becomes durable; a leader's own log counts from then on */
  :: atomic { mem[i].term != disk[i].term || mem[i].vote != disk[i].vote ||
              mem[i].log.size != disk[i].log.size || LAST(mem[i].log) != LAST(disk[i].log) ||
              (role[i] == LEADER && MATCH(i, i) != mem[i].log.size) ->
       persist(i);
       if :: role[i] == LEADER -> MATCH(i, i) = mem[i].log.size :: else fi
     }

  /* j takes the leader's log over, and acknowledges it once it is durable */
  :: atomic { role[i] == LEADER ->
       select(j : 0 .. 2);
       if
       :: j != i && mem[j].term <= mem[i].term ->
          raise(j, mem[i].term);
          if :: role[j] == CANDIDATE -> step_down(j) :: else fi;
          if
          :: damaged[j] ->
             if
#ifdef FILL_IN_OLD_TERM
             :: true ->
#else
             :: (knew[i] & BIT(j)) ->  /* elected knowing of the damage and without that vote: whole again (0008) */
#endif
                printf("%d fills %d in term %d\n", i, j, mem[i].term);
                copy_log(mem[j].log, mem[i].log); persist(j); whole(j); MATCH(i, j) = mem[j].log.size
             :: else
             fi
          :: filling[j] && committed.size > 0 && mem[i].log.size >= committed.size &&
             LAST(mem[i].log) == mem[i].term ->
             /* R10: gets the applied state, then counts again from what follows it */
             copy_log(mem[j].log, mem[i].log); persist(j); filling[j] = false; MATCH(i, j) = mem[j].log.size
          :: !damaged[j] && !filling[j] ->
             n = mem[j].log.size;
             copy_log(mem[j].log, mem[i].log);
#ifdef PARTIAL
             if
             :: true
             :: n < mem[j].log.size && mem[j].log.size > 1 ->  /* not all at once; nothing that agrees is cut */
                mem[j].log.size--; mem[j].log.term[mem[j].log.size] = 0
             fi;
#endif
             n = 0;
             printf("%d has the log of %d in term %d\n", j, i, mem[i].term);
#ifndef ACKNOWLEDGE_BEFORE_DURABLE
             persist(j);
#endif
             MATCH(i, j) = mem[j].log.size
          :: else
          fi
       :: else
       fi; j = 0
     }

  /* R10: what j misses is gone from its leader's log; it loses nothing that it has */
  :: atomic { fillings < MAXFILL && role[i] == FOLLOWER && !damaged[i] ->
       fillings++; filling[i] = true
     }

  /* commits what a majority of all members has, in its own term */
  :: atomic { role[i] == LEADER && mem[i].log.size > committed.size ->
       n = mem[i].log.size;
       do
       :: n > committed.size ->
          c = (MATCH(i, 0) >= n -> 1 : 0) + (MATCH(i, 1) >= n -> 1 : 0) + (MATCH(i, 2) >= n -> 1 : 0);
          if
#ifdef QUORUM_SHRINKS
          :: c + filling[0] + filling[1] + filling[2] >= 2 && c >= 1 && mem[i].log.term[n - 1] == mem[i].term -> break
#else
#ifdef COMMIT_OLD_TERMS
          :: c >= 2 -> break
#else
          :: c >= 2 && mem[i].log.term[n - 1] == mem[i].term -> break
#endif
#endif
          :: else -> n--
          fi
       :: else -> break
       od;
       if
       :: n > committed.size ->
          c = 0;
          do
          :: c < committed.size -> assert(committed.term[c] == mem[i].log.term[c]); c++
          :: else -> break
          od;
          c = 0;
          do
          :: c < MAXLEN ->
             if
             :: c >= committed.size && c < n -> committed.term[c] = mem[i].log.term[c]; committed_in[c] = mem[i].term
             :: else
             fi;
             c++
          :: else -> break
          od;
          committed.size = n;
          printf("%d commits %d in term %d\n", i, n, mem[i].term)
       :: else
       fi; n = 0; c = 0
     }

  /* a crash; it may have damaged what was acknowledged (R3) */
  :: atomic { crashes < MAXCRASH ->
       crashes++;
       if
       :: true
       :: damages < MAXDAMAGE && disk[i].log.size > 0 && !filling[i] && !ANY_DAMAGED ->
          damages++; damaged[i] = true;
          disk[i].log.size--; disk[i].log.term[disk[i].log.size] = 0;
          if
          :: disk[i].vote = NONE
          :: disk[i].vote = NONE; disk[i].term = LAST(disk[i].log)
          fi
       fi;
       mem[i].term = disk[i].term; mem[i].vote = disk[i].vote;
       copy_log(mem[i].log, disk[i].log);
       step_down(i);
       printf("%d crashes: damaged %d, term %d, log %d\n", i, damaged[i], mem[i].term, mem[i].log.size)
     }
  od
}

init {
  byte t;
  atomic {
    t = 0;
    do :: t <= MAXTERM -> leader_of[t] = NONE; t++ :: else -> break od;
    t = 0;
    do :: t < N -> mem[t].vote = NONE; disk[t].vote = NONE; t++ :: else -> break od;
    run Replica(0); run Replica(1); run Replica(2)
  }
}
