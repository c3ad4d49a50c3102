/* A bounded byte queue in a shared mapping that survives SIGKILL of any peer at any instruction.
 *
 * This file is the layout and the protocol; _ring.c carries it out and _ring_file.c makes and
 * checks the file, neither knowing of Python; _sagequeue.c is the Python face.
 *
 * STATE.  `head` and `tail` are byte positions that only ever grow; position p lies at offset
 * p & (capacity - 1).  The frames between them are the queue: a 16-byte header (state, length)
 * and the bytes, padded to 16, so that a header never wraps and the bytes may.  Everything else
 * in the mapping is a hint that may be stale in the harmless direction (`head_seen`, `tail_seen`,
 * `scan` are lower bounds) or a request to be woken.
 *
 * LOCKS.  Producers take `put_mutex`, consumers `get_mutex`; both are robust and process-shared.
 *   put:   lock put; write the frames past tail; move `commits` on (THE commit); unlock.
 *   get:   lock get; copy the frames at head; wake; store head (release, THE commit); unlock.
 * A death before the commit leaves nothing to repair, one after it nothing to undo.  The next to
 * lock gets EOWNERDEAD, marks the mutex consistent and wakes everybody on both sides.
 *
 * TAIL.  There are two, and a bit of `commits` says which one holds: a producer writes the other
 * one and moves `commits` on.  That word also says whether consumers sleep, so that publishing is
 * one step, whether somebody has to be woken for it or not:
 *   nobody sleeps -> compare-and-swap of `commits`, which fails if somebody has just gone to sleep;
 *   somebody does -> FUTEX_WAKE_OP, in which the kernel moves `commits` on and wakes those who
 *                    sleep on it; no death comes between the two.
 * Whoever reads a tail looks at `commits` again afterwards: the pair may have changed over.
 *
 * SLEEPING.  A consumer sets COMMITS_SLEEPERS, which needs no lock, looks once more, and sleeps
 * on `commits` as it found it.  It is awake before the producer has let go of `put_mutex`, and
 * does not need it: where both share a CPU, that would cost two more switches.
 * A producer that waits for room registers under `get_mutex`: it leaves a request there, notes the
 * futex word, unlocks, sleeps on the word.  A consumer, holding that same lock, first clears the
 * request, bumps the word and wakes, and only then publishes.  So:
 *   killed before the wake    -> nothing was published, sleeping on is right;
 *   killed after the wake     -> the woken are blocked on the mutex or past it; they look again;
 *   killed after the publish  -> the wake has already happened.
 * On both sides there is no instant at which something is published and a sleeper has not been
 * woken.  All sleepers are woken, never one: the one might be killed before it acts.
 * (A sleep also ends after RECHECK_NS.  That is a belt: `missed_wakes` counts each time it was
 * needed, and the tests demand zero.)
 *
 * LARGE FRAMES are copied outside the lock, under a SLOT: one of 32 robust mutexes, held by the
 * copier from the reservation to the end, so that the kernel itself announces its death, at once
 * and without pids or their reuse.  The frame's one state word names slot and generation:
 *   put:   READY is not yet true: RESERVED(slot, gen) -> [tail published, unlocked, copy] -> READY
 *   get:   READY -> TAKEN(slot, gen) -> [unlocked, copy] -> DONE -> head moves over DONE frames
 * A frame whose state still names (slot, gen) while the slot is free, or has another generation,
 * has lost its copier; any peer that meets it makes it DONE.  The reservation was never
 * acknowledged; a taken frame went down with its consumer.  Who is blocked by such a frame waits
 * on the slot's mutex, hence is woken by completion and by death alike.  Slots are only ever
 * try-locked under a main lock, main locks may be taken under a slot, and both main locks are
 * taken together only by ring_shutdown (put, then get): no cycle.
 *
 * ORDER is that of reservation.  While the head frame is being copied out, later frames are taken
 * and marked DONE; `scan` remembers where to go on looking.
 *
 * FORK.  A forked child may use the inherited handle: mutex ownership is by thread, and the
 * child's one thread owns nothing.  EXEC and exit release like a kill.
 */
#ifndef SAGE_RING_H
#define SAGE_RING_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define RING_MAGIC UINT64_C(0x3130514547415300) /* "\0SAGEQ01" read as bytes */
#define RING_VERSION 2u
#define RING_SLOTS 32u
#define RING_LINE 128 /* adjacent cache lines are fetched in pairs */
#define RING_LARGE (32u * 1024)      /* bytes: longer frames are copied outside the lock */
#define RING_BATCH (2u * RING_LARGE) /* bytes copied per lock hold at most */
#define RING_FRAME_HEADER 16u
#define RING_FOREVER UINT64_MAX

enum ring_result {
    RING_OK,
    RING_FULL,
    RING_EMPTY,
    RING_CLOSED,      /* shut down for everybody */
    RING_LARGE_FRAME, /* the next frame wants ring_claim */
    RING_PENDING,     /* the next frame is still being copied in */
    RING_MOVED,       /* somebody else took the frame */
    RING_BUSY,        /* the lock is held: come back without the interpreter lock */
    RING_INTERRUPTED, /* look at signals and at your handle, then go on */
    RING_CORRUPT
};

/* The word that publishes: flags, and above them the number of commits. */
enum commits {
    COMMITS_SLEEPERS = 1, /* consumers sleep; cleared by those only who wake them */
    COMMITS_SHUT = 2,     /* for good */
    COMMITS_STIR = 4,     /* changes when all are to look again though nothing is published */
    COMMITS_ONE = 8       /* as a bit, also: which of the two tails holds */
};

struct ring_slot {
    alignas(RING_LINE) pthread_mutex_t mutex;
    _Atomic uint32_t generation;
};

struct ring_header {
    uint64_t magic;
    uint32_t version;
    uint32_t layout; /* differs where the C library lays out its mutexes differently */
    uint64_t file_size;
    uint64_t capacity;
    uint64_t pid_namespace; /* robust mutexes hold thread ids, which mean nothing elsewhere */
    uint64_t boot_id[2];    /* nor do they after a reboot */
    uint64_t identity;      /* tells this queue from a later one of the same name */

    alignas(RING_LINE) _Atomic uint64_t recoveries; /* locks inherited from the dead */
    _Atomic uint64_t missed_wakes; /* must stay 0 */
    _Atomic uint64_t orphans;      /* large frames whose copier died */

    alignas(RING_LINE) pthread_mutex_t put_mutex;
    uint64_t head_seen;
    alignas(RING_LINE) _Atomic uint32_t commits; /* enum commits */
    _Atomic uint64_t tails[2];

    alignas(RING_LINE) pthread_mutex_t get_mutex;
    uint64_t tail_seen;
    uint64_t scan;
    uint64_t space_wanted; /* producers sleep until head gets here; UINT64_MAX: none do */
    _Atomic uint32_t space_word;
    alignas(RING_LINE) _Atomic uint64_t head;

    struct ring_slot slots[RING_SLOTS];
};

/* Whether to spin before sleeping is learnt per handle and side: see spin_length. */
struct ring_spin {
    uint32_t failures;
    uint32_t skip;
    uint32_t probes; /* how many in a row came back, slowly */
    uint64_t truce_until, truce_ns;
};

struct ring {
    struct ring_header *header;
    uint8_t *data;
    uint64_t capacity;
    size_t mapped;
    int may_spin; /* more than one CPU is ours */
    struct ring_spin put_spin, get_spin;
    _Atomic int closing; /* this handle: its blocked threads are to leave */
};

struct ring_part {
    const void *bytes;
    uint64_t length;
};

struct ring_message {
    const struct ring_part *parts;
    size_t part_count;
    uint64_t length;
};

/* Absolute CLOCK_MONOTONIC nanoseconds; deadline 0: do not wait for the queue. */
struct ring_wait {
    uint64_t deadline;
    uint64_t patience; /* for a lock: its holder may be stopped, but not for our sake */
};

/* Frames as they lie in the ring, one after the other. */
struct ring_batch {
    uint8_t *bytes; /* RING_BATCH of them */
    size_t limit;   /* frames wanted */
    size_t count;
    int was_last; /* nothing more was there when these were taken */
    uint64_t large_position, large_length; /* after RING_LARGE_FRAME */
    uint64_t position, state;              /* of the frame that was RING_PENDING */
    uint64_t tail_seen;                    /* after RING_EMPTY */
};

uint64_t ring_now(void);
uint64_t ring_footprint(uint64_t length);
size_t ring_file_size(uint64_t capacity);
int ring_create(int fd, uint64_t capacity, uint64_t identity);
const char *ring_attach(struct ring *ring, int fd, int *error);
int ring_try_commit(struct ring_header *header);
void ring_detach(struct ring *ring);
void ring_abandon_waits(struct ring *ring);

int ring_try_put(struct ring *, const struct ring_message *, size_t count, size_t *done);
int ring_put(struct ring *, const struct ring_message *, size_t count, size_t *done,
             const struct ring_wait *);
int ring_try_get(struct ring *, struct ring_batch *);
int ring_get(struct ring *, struct ring_batch *, const struct ring_wait *);
int ring_claim(struct ring *, const struct ring_batch *, uint8_t *into, const struct ring_wait *);
int ring_shutdown(struct ring *, const struct ring_wait *);
int ring_count(struct ring *, uint64_t *count, const struct ring_wait *);
int ring_is_empty(const struct ring *);
uint64_t ring_tail(const struct ring *);
uint64_t ring_free_bytes(const struct ring *);

/* Tests make a process signal itself at the n-th passage of a named step. */
extern const char *const ring_steps[];
int ring_arm(const char *step, int signal_number, unsigned passages);

#endif
