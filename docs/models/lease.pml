/* Leases (rule R9): may two stores hold a lease of one copyset at the same time?
 *
 * Store 0 leads and renews its lease by beats. Stores 1 and 2 promise, by confirming a beat, to vote for nobody else for a lease,
 * counted from when they got it; store 0 counts its lease from when it sent the beat, less what clocks may drift. Time goes in ticks;
 * clocks run at their own rate: a promise of nominally PROMISE ticks lasts one more or less, a lease one less or as long. Beats and
 * their answers take any time. Stores 1 and 2 restart and forget what they promised.
 *
 * Checked: when store 1 is elected, store 0 has no lease, and gets none in that term any more.
 * Deliberate bugs, each must be found: see tools/model.
 */
#define PROMISE 4
#define LEASE 3
#define NOBODY 9

byte promise[3];    /* ticks that a promise to store 0 still binds; [0] is not used */
byte wait_[3];      /* ticks until a restarted store votes */
byte beat[3];       /* a beat under way to j: its age in ticks, plus one; 0: none */
byte answer[3];     /* the answer under way: age of its beat, plus one */
byte lease = 0;     /* of store 0, ticks left */
bool transferred = false;
bool elected = false;
byte restarts = 0;

#define LONGEST 6
#define AGE(x) (x > 0 && x < LONGEST -> x + 1 : x)
#define LESS(x) (x > 0 -> x - 1 : 0)

active proctype World() {
  byte j, length;
end:
  do
  /* time */
  :: atomic {
       promise[1] = LESS(promise[1]); promise[2] = LESS(promise[2]);
       wait_[1] = LESS(wait_[1]); wait_[2] = LESS(wait_[2]);
       beat[1] = AGE(beat[1]); beat[2] = AGE(beat[2]);
       answer[1] = AGE(answer[1]); answer[2] = AGE(answer[2]);
       lease = LESS(lease)
     }
  /* store 0 sends a beat */
  :: atomic { !elected -> select(j : 1 .. 2); if :: beat[j] == 0 -> beat[j] = 1 :: else fi; j = 0 }
  /* one arrives, and is confirmed with a promise */
  :: atomic { select(j : 1 .. 2);
       if
       :: beat[j] > 0 && answer[j] == 0 && !elected ->
          select(length : PROMISE - 1 .. PROMISE + 1);
          promise[j] = (promise[j] > length -> promise[j] : length);
          answer[j] = beat[j]; beat[j] = 0
       :: else
       fi; j = 0; length = 0
     }
  /* a confirmation arrives: with store 0 itself that is a quorum */
  :: atomic { select(j : 1 .. 2);
       if
       :: answer[j] > 0 ->
          select(length : LEASE - 1 .. LEASE);
          if
#ifdef LEASE_AFTER_TRANSFER
          :: false
#else
          :: transferred  /* no lease in this term any more */
#endif
#ifdef LEASE_FROM_ARRIVAL
          :: length > lease && !transferred -> lease = length
#else
#ifdef LEASE_AFTER_TRANSFER
          :: length > answer[j] - 1 && length - (answer[j] - 1) > lease -> lease = length - (answer[j] - 1)
#else
          :: !transferred && length > answer[j] - 1 && length - (answer[j] - 1) > lease ->
             lease = length - (answer[j] - 1)
#endif
#endif
          :: else
          fi;
          assert(!(elected && lease > 0));
          answer[j] = 0
       :: else
       fi; j = 0; length = 0
     }
  /* a restart: what was promised is forgotten, so nothing is voted for a lease */
  :: atomic { restarts < 2 ->
       restarts++;
       select(j : 1 .. 2);
       promise[j] = 0; beat[j] = 0;
#ifndef VOTE_AFTER_START
       select(length : PROMISE - 1 .. PROMISE + 1);
       wait_[j] = length;
#endif
       j = 0; length = 0
     }
  /* store 0 hands over to store 1 */
  :: atomic { !transferred && !elected ->
       transferred = true;
#ifndef LEASE_AFTER_TRANSFER
       lease = 0;
#endif
       promise[1] = 0; promise[2] = 0  /* a vote that was asked for by the leader is not bound */
     }
  /* stores 1 and 2 vote for store 1 */
  :: atomic { !elected && promise[1] == 0 && wait_[1] == 0 && wait_[2] == 0 &&
#ifdef ONE_PROMISE_IS_ENOUGH
       true ->
#else
       promise[2] == 0 ->
#endif
       elected = true;
       assert(lease == 0)
     }
  od
}
