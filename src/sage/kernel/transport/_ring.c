/* The protocol of _ring.h.  No Python here: every function may run without the interpreter lock. */
#include "_ring.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)
#define RECHECK_NS SECOND          /* a sleeper looks again at least this often */
#define SLICE_NS (SECOND / 20)     /* mutex waits ignore signals, so they are cut in slices */
#define SPIN_NS UINT64_C(50000)    /* about what a sleep and a wake-up cost on a halted CPU */
#define PROBE_NS UINT64_C(400000)  /* a sleep, a slow wake-up and the peer's own work */
#define PROBES 64u                 /* as many waits as a peer may skip before it spins again */
#define GLANCE_NS UINT64_C(1500)   /* always worth it: the frame may be a cache miss away */
#define POLITE_NS UINT64_C(4000)   /* after that the peer may need this very CPU: yield */
#define PREEMPTED_NS UINT64_C(100000) /* so long between two looks: others want this CPU */
#define TRUCE_NS (SECOND / 1000)   /* then do without spinning for so long, at first */
#define TRUCE_MAX_NS (SECOND / 10) /* and at most, when it happens again and again */
#define TRUCE_MEMORY 8             /* again: within so many truces */
#define TURN_NS (SECOND / 500)     /* who computes keeps the CPU at least so long */
#define LOCK_SPINS 100
#define SPIN_SKIP_MAX 6u           /* after spins that failed: up to 63 waits without */
#define PROBE_SKIP_MAX 10u         /* after probes that led to nothing: up to 1023 */

/* ---- tests: signal yourself at a step ------------------------------------------------------ */

#define STEPS(X) \
    X(PUT_ENTERED, "put:entered") X(GET_ENTERED, "get:entered") X(PUT_LOCKED, "put:locked") \
    X(PUT_COPIED, "put:copied") X(PUT_PREPARED, "put:prepared") X(PUT_PUBLISHED, "put:published") \
    X(PUT_UNLOCKED, "put:unlocked") X(RESERVE_SLOT, "reserve:slot") \
    X(RESERVE_MARKED, "reserve:marked") X(RESERVE_PUBLISHED, "reserve:published") \
    X(RESERVE_HALF, "reserve:half copied") X(RESERVE_COPIED, "reserve:copied") \
    X(RESERVE_READY, "reserve:ready") X(GET_LOCKED, "get:locked") X(GET_COPIED, "get:copied") \
    X(GET_WOKEN, "get:woken") X(GET_PUBLISHED, "get:published") X(GET_UNLOCKED, "get:unlocked") \
    X(GET_MARKED, "get:marked") X(CLAIM_WOKEN, "claim:woken") X(CLAIM_TAKEN, "claim:taken") \
    X(CLAIM_UNLOCKED, "claim:unlocked") X(CLAIM_HALF, "claim:half copied") \
    X(CLAIM_COPIED, "claim:copied") X(CLAIM_DONE, "claim:done") X(CLAIM_SWEPT, "claim:swept") \
    X(WAIT_DATA, "wait:data registered") X(WAIT_SPACE, "wait:space registered") \
    X(RECOVERING, "recover:consistent") X(SHUT_WOKEN, "shutdown:woken") \
    X(SHUT_PUBLISHED, "shutdown:published")
#define AS_ENUM(symbol, name) STEP_##symbol,
#define AS_NAME(symbol, name) name,
enum ring_step { STEPS(AS_ENUM) STEP_COUNT };
const char *const ring_steps[] = {STEPS(AS_NAME) NULL};

static struct {
    int armed; /* step + 1 */
    int signal_number;
    unsigned passages;
} trap;

int ring_arm(const char *step, int signal_number, unsigned passages)
{
    for (int i = 0; i < STEP_COUNT; i++) {
        if (strcmp(ring_steps[i], step) == 0) {
            trap.signal_number = signal_number;
            trap.passages = passages;
            trap.armed = i + 1;
            return 0;
        }
    }
    return -1;
}

static __attribute__((noinline, cold)) void passed(int step)
{
    if (trap.armed == step + 1 && trap.passages-- <= 1) {
        trap.armed = 0;
        kill(getpid(), trap.signal_number);
    }
}

#define STEP(symbol) \
    do { \
        if (__builtin_expect(trap.armed, 0)) \
            passed(STEP_##symbol); \
    } while (0)

/* ---- time, futex, frames ------------------------------------------------------------------- */

uint64_t ring_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static struct timespec as_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void wake_all(_Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Sleeps until woken or until `until`.  Returns errno of the wait, 0 if woken. */
static int sleep_on(_Atomic uint32_t *word, uint32_t value, uint64_t until)
{
    struct timespec limit = as_timespec(until);
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &limit, NULL,
                      FUTEX_BITSET_MATCH_ANY);
    return rc == 0 ? 0 : errno;
}

/* Changes `commits` and wakes all who sleep on it, in one step that no death divides. */
static long commit_waking(struct ring_header *h, int operation, uint32_t operand)
{
    return syscall(SYS_futex, &h->commits, FUTEX_WAKE_OP, INT32_MAX, NULL, &h->commits,
                   FUTEX_OP(operation, operand, FUTEX_OP_CMP_LT, 0));
}

/* Returns 0, or the errno of a kernel that cannot do it: there no queue is made. */
int ring_try_commit(struct ring_header *h)
{
    return commit_waking(h, FUTEX_OP_ADD, 0) < 0 ? errno : 0;
}

/* Under put_mutex: moves `commits` on by `step`; who sleeps is woken by the same step. */
static void commit(struct ring_header *h, uint32_t step)
{
    uint32_t value = atomic_load_explicit(&h->commits, memory_order_relaxed);
    while (!(value & COMMITS_SLEEPERS))
        if (atomic_compare_exchange_weak_explicit(&h->commits, &value, value + step,
                                                  memory_order_release, memory_order_relaxed))
            return;
    commit_waking(h, FUTEX_OP_ADD, step - COMMITS_SLEEPERS);
}

/* Lets all consumers look again; those who are about to sleep do not. */
static void stir_consumers(struct ring_header *h)
{
    commit_waking(h, FUTEX_OP_XOR, COMMITS_STIR);
}

static _Atomic uint64_t *tail_of(struct ring_header *h, uint32_t commits)
{
    return &h->tails[(commits & COMMITS_ONE) != 0];
}

static uint64_t tail_now(struct ring_header *h)
{
    uint32_t before = atomic_load_explicit(&h->commits, memory_order_acquire), after = before;
    uint64_t tail;
    do {
        before = after;
        tail = atomic_load_explicit(tail_of(h, before), memory_order_acquire);
        after = atomic_load_explicit(&h->commits, memory_order_acquire);
    } while (before / COMMITS_ONE != after / COMMITS_ONE);
    return tail;
}

static int is_shut(struct ring_header *h)
{
    return (atomic_load_explicit(&h->commits, memory_order_acquire) & COMMITS_SHUT) != 0;
}

struct frame {
    _Atomic uint64_t state;
    uint64_t length;
};

/* The kind is in the low byte; the tag makes zeroes and stray bytes recognisable as no frame. */
enum { READY = 0xA1, RESERVED = 0xA2, TAKEN = 0xA3, DONE = 0xA4 };

static uint64_t kind_of(uint64_t state)
{
    return state & 0xff;
}

static uint64_t state_of(uint64_t kind, unsigned slot, uint32_t generation)
{
    return kind | (uint64_t)slot << 8 | (uint64_t)generation << 32;
}

uint64_t ring_footprint(uint64_t length)
{
    return (RING_FRAME_HEADER + length + 15) & ~UINT64_C(15);
}

static struct frame *frame_at(const struct ring *ring, uint64_t position)
{
    return (struct frame *)(ring->data + (position & (ring->capacity - 1)));
}

static void copy_in(struct ring *ring, uint64_t position, const void *bytes, uint64_t length)
{
    uint64_t at = position & (ring->capacity - 1);
    uint64_t first = earlier(length, ring->capacity - at);
    memcpy(ring->data + at, bytes, first);
    if (first < length)
        memcpy(ring->data, (const uint8_t *)bytes + first, length - first);
}

static void copy_out(const struct ring *ring, uint64_t position, uint8_t *into, uint64_t length)
{
    uint64_t at = position & (ring->capacity - 1);
    uint64_t first = earlier(length, ring->capacity - at);
    memcpy(into, ring->data + at, first);
    if (first < length)
        memcpy(into + first, ring->data, length - first);
}

/* ---- locks --------------------------------------------------------------------------------- */

static int recovered(struct ring *ring, pthread_mutex_t *mutex)
{
    struct ring_header *h = ring->header;
    if (pthread_mutex_consistent(mutex) != 0)
        return RING_CORRUPT;
    STEP(RECOVERING);
    atomic_fetch_add(&h->recoveries, 1);
    stir_consumers(h);
    wake_all(&h->space_word);
    return RING_OK;
}

static int locked(struct ring *ring, pthread_mutex_t *mutex, int rc)
{
    if (rc == 0)
        return RING_OK;
    return rc == EOWNERDEAD ? recovered(ring, mutex) : RING_CORRUPT;
}

/* Never sleeps, so it may be called with the interpreter lock held. */
static int lock_spinning(struct ring *ring, pthread_mutex_t *mutex)
{
    for (int i = 0;; i++) {
        int rc = pthread_mutex_trylock(mutex);
        if (rc != EBUSY)
            return locked(ring, mutex, rc);
        if (i >= LOCK_SPINS || !ring->may_spin)
            return RING_BUSY;
        relax();
    }
}

static int timed_lock(pthread_mutex_t *mutex, uint64_t until)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
    struct timespec limit = as_timespec(until);
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &limit);
#else
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    uint64_t now = ring_now(), left = until > now ? until - now : 0;
    struct timespec limit =
        as_timespec((uint64_t)wall.tv_sec * SECOND + (uint64_t)wall.tv_nsec + left);
    return pthread_mutex_timedlock(mutex, &limit);
#endif
}

/* wait NULL: only spin. */
static int lock(struct ring *ring, pthread_mutex_t *mutex, const struct ring_wait *wait)
{
    int result = lock_spinning(ring, mutex);
    if (result != RING_BUSY || wait == NULL)
        return result;
    uint64_t until = wait->deadline > wait->patience ? wait->deadline : wait->patience;
    uint64_t now = ring_now();
    if (now >= until)
        return RING_BUSY;
    int rc = timed_lock(mutex, earlier(until, now + SLICE_NS));
    return rc == ETIMEDOUT ? RING_INTERRUPTED : locked(ring, mutex, rc);
}

static void unlock(pthread_mutex_t *mutex)
{
    pthread_mutex_unlock(mutex);
}

/* ---- slots --------------------------------------------------------------------------------- */

static int try_slot(struct ring_slot *slot)
{
    int rc = pthread_mutex_trylock(&slot->mutex);
    if (rc == EOWNERDEAD)
        rc = pthread_mutex_consistent(&slot->mutex);
    return rc == 0;
}

/* Returns the slot's number with its mutex held and a fresh generation, or -1. */
static int borrow_slot(struct ring_header *h, uint32_t *generation)
{
    for (unsigned i = 0; i < RING_SLOTS; i++) {
        if (try_slot(&h->slots[i])) {
            *generation = atomic_fetch_add(&h->slots[i].generation, 1) + 1;
            return (int)i;
        }
    }
    return -1;
}

static struct ring_slot *slot_of(struct ring *ring, uint64_t state)
{
    return &ring->header->slots[(state >> 8 & 0xff) % RING_SLOTS];
}

/* Whether the copier of a RESERVED or TAKEN frame is gone without finishing. */
static int is_orphan(struct ring *ring, struct frame *frame, uint64_t state)
{
    struct ring_slot *slot = slot_of(ring, state);
    if (atomic_load(&slot->generation) == (uint32_t)(state >> 32)) {
        if (!try_slot(slot))
            return 0;
        unlock(&slot->mutex);
    }
    return atomic_load_explicit(&frame->state, memory_order_acquire) == state;
}

/* Under a main lock: turns a frame whose copier died into one that is DONE. */
static int bury_orphan(struct ring *ring, struct frame *frame, uint64_t state)
{
    if (!is_orphan(ring, frame, state))
        return 0;
    atomic_fetch_add(&ring->header->orphans, 1);
    atomic_store_explicit(&frame->state, DONE, memory_order_release);
    return 1;
}

/* Waits until the copier of the frame has finished or died; the caller looks again. */
static int wait_for_copier(struct ring *ring, uint64_t position, uint64_t state,
                           const struct ring_wait *wait, int given_up)
{
    struct frame *frame = frame_at(ring, position);
    struct ring_slot *slot = slot_of(ring, state);
    uint64_t now = ring_now(), until = now + SPIN_NS;
    do {
        if (atomic_load_explicit(&frame->state, memory_order_acquire) != state)
            return RING_OK;
        relax();
    } while (ring->may_spin && wait->deadline != 0 && ring_now() < until);
    now = ring_now();
    if (now >= wait->deadline)
        return given_up;
    int rc = timed_lock(&slot->mutex, earlier(wait->deadline, now + SLICE_NS));
    if (rc == ETIMEDOUT)
        return RING_INTERRUPTED;
    if (rc == EOWNERDEAD)
        rc = pthread_mutex_consistent(&slot->mutex);
    if (rc != 0)
        return RING_CORRUPT;
    unlock(&slot->mutex);
    return RING_OK;
}

/* ---- publishing: under the lock, nothing visible before all are woken ------------------------ */

static void publish_tail(struct ring_header *h, uint64_t tail)
{
    uint32_t next = atomic_load_explicit(&h->commits, memory_order_relaxed) + COMMITS_ONE;
    /* Released, so that who sees it early sees the commit before it too, and looks again. */
    atomic_store_explicit(tail_of(h, next), tail, memory_order_release);
    STEP(PUT_PREPARED);
    commit(h, COMMITS_ONE);
    STEP(PUT_PUBLISHED);
}

static void wake_producers(struct ring_header *h)
{
    h->space_wanted = UINT64_MAX;
    wake_all(&h->space_word);
}

static void publish_head(struct ring_header *h, uint64_t head)
{
    if (head >= h->space_wanted) {
        wake_producers(h);
        STEP(GET_WOKEN);
    }
    atomic_store_explicit(&h->head, head, memory_order_release);
    STEP(GET_PUBLISHED);
}

/* Under get_mutex: lets head pass all frames that nobody will read any more. */
static void sweep(struct ring *ring)
{
    struct ring_header *h = ring->header;
    uint64_t tail = tail_now(h);
    uint64_t head = atomic_load_explicit(&h->head, memory_order_relaxed), position = head;
    while (position < tail) {
        struct frame *frame = frame_at(ring, position);
        uint64_t state = atomic_load_explicit(&frame->state, memory_order_acquire);
        uint64_t kind = kind_of(state);
        if (kind != DONE &&
            !((kind == RESERVED || kind == TAKEN) && bury_orphan(ring, frame, state)))
            break;
        position += ring_footprint(frame->length);
    }
    if (position != head)
        publish_head(h, position);
}

/* ---- spinning ------------------------------------------------------------------------------ */

/* Spin only while it has been paying: after a failed spin the next 1, 3, 7 … waits go without, so
 * an idle waiter costs nothing and one whose peer has become quick again soon finds out.  One who
 * spins on a contended CPU uses up its share and is then made to wait for milliseconds, where a
 * sleeper is given the CPU at once; so being preempted ends spinning for a while, for longer each
 * time that it happens soon again.
 *
 * Two that answer each other and have both gone to sleep, after a hiccup, would wait for each
 * other's wake-up for ever: a spin ends before a sleeper has answered.  So the first spin after
 * waits without is a probe: it is long enough to see the answer of one that has to wake up, and as
 * long as such answers come the next waits are probes too, until the peer has tried to spin as well
 * and both are quick again, or has had its chance. */
static uint64_t spin_length(struct ring_spin *spin, uint64_t now)
{
    if (now < spin->truce_until)
        return GLANCE_NS;
    if (spin->skip > 0) {
        spin->skip--;
        return GLANCE_NS;
    }
    return spin->failures > 0 ? PROBE_NS : SPIN_NS;
}

static void spin_failed(struct ring_spin *spin, uint32_t most)
{
    if (spin->failures < most)
        spin->failures++;
    spin->skip = (1u << spin->failures) - 1;
    spin->probes = 0;
}

static void spin_paid(struct ring_spin *spin, uint64_t waited)
{
    if (waited <= SPIN_NS)
        spin->failures = spin->probes = 0;
    else if (++spin->probes >= PROBES)
        spin_failed(spin, PROBE_SKIP_MAX);
}

/* A neighbour on the same host, or a program that does a little at a time, takes the CPU now and
 * then, which says little; those who compute on this machine keep it for a turn, again and again. */
static void spin_preempted(struct ring_spin *spin, uint64_t now, uint64_t away)
{
    if (away < TURN_NS || now - spin->truce_until > TRUCE_MEMORY * spin->truce_ns)
        spin->truce_ns = TRUCE_NS;
    else if (spin->truce_ns < TRUCE_MAX_NS)
        spin->truce_ns *= 2;
    spin->truce_until = now + spin->truce_ns;
}

static uint64_t head_now(struct ring_header *h)
{
    return atomic_load_explicit(&h->head, memory_order_acquire);
}

/* Returns 1 when what `look` returns is no longer `seen`. */
static int spin_until_moved(struct ring *ring, struct ring_spin *spin,
                            uint64_t (*look)(struct ring_header *), uint64_t seen,
                            uint64_t deadline)
{
    if (!ring->may_spin || deadline == 0)
        return look(ring->header) != seen;
    uint64_t start = ring_now(), now = start;
    uint64_t length = spin_length(spin, now), until = earlier(deadline, start + length);
    do {
        for (int i = 0; i < 8; i++) {
            if (look(ring->header) != seen) {
                if (length > GLANCE_NS)
                    spin_paid(spin, now - start);
                return 1;
            }
            relax();
        }
        uint64_t before = now;
        if (now - start > POLITE_NS)
            sched_yield();
        now = ring_now();
        if (now - before > PREEMPTED_NS)
            spin_preempted(spin, now, now - before);
    } while (now < until);
    if (length > GLANCE_NS)
        spin_failed(spin, SPIN_SKIP_MAX);
    return 0;
}

/* ---- put ----------------------------------------------------------------------------------- */

/* Under put_mutex.  A stale head only makes the ring look fuller than it is. */
static int fits(struct ring *ring, uint64_t tail, uint64_t need)
{
    struct ring_header *h = ring->header;
    if (tail + need - h->head_seen <= ring->capacity)
        return 1;
    h->head_seen = atomic_load_explicit(&h->head, memory_order_acquire);
    return tail + need - h->head_seen <= ring->capacity;
}

static void write_parts(struct ring *ring, uint64_t position, const struct ring_message *message)
{
    position += RING_FRAME_HEADER;
    for (size_t i = 0; i < message->part_count; i++) {
        if (i == 1)
            STEP(RESERVE_HALF);
        copy_in(ring, position, message->parts[i].bytes, message->parts[i].length);
        position += message->parts[i].length;
    }
}

static void write_header(struct ring *ring, uint64_t position, uint64_t length, uint64_t state)
{
    struct frame *frame = frame_at(ring, position);
    frame->length = length;
    atomic_store_explicit(&frame->state, state, memory_order_release);
}

/* Copies frames that need no slot, as many as fit and as one lock hold allows. */
static int put_small(struct ring *ring, const struct ring_message *messages, size_t count,
                     size_t *done, int any_size)
{
    struct ring_header *h = ring->header;
    uint64_t tail = tail_now(h), start = tail;
    size_t n = 0;
    while (n < count && (tail == start || tail - start < RING_BATCH)) {
        const struct ring_message *message = &messages[n];
        uint64_t need = ring_footprint(message->length);
        if ((message->length > RING_LARGE && !any_size) || !fits(ring, tail, need))
            break;
        write_parts(ring, tail, message);
        write_header(ring, tail, message->length, READY);
        tail += need;
        n++;
    }
    *done += n;
    STEP(PUT_COPIED);
    if (n > 0)
        publish_tail(h, tail);
    unlock(&h->put_mutex);
    STEP(PUT_UNLOCKED);
    return n > 0 ? RING_OK : RING_FULL;
}

/* Enters with put_mutex held: reserves, unlocks, copies, commits. */
static int put_large(struct ring *ring, const struct ring_message *message, size_t *done)
{
    struct ring_header *h = ring->header;
    uint64_t tail = tail_now(h);
    uint64_t need = ring_footprint(message->length);
    uint32_t generation;
    int slot = -1;
    if (fits(ring, tail, need))
        slot = borrow_slot(h, &generation);
    if (slot < 0) /* full, or all slots busy: then this one is copied under the lock */
        return put_small(ring, message, 1, done, 1);
    STEP(RESERVE_SLOT);
    write_header(ring, tail, message->length, state_of(RESERVED, (unsigned)slot, generation));
    STEP(RESERVE_MARKED);
    publish_tail(h, tail + need);
    unlock(&h->put_mutex);
    STEP(RESERVE_PUBLISHED);
    write_parts(ring, tail, message);
    STEP(RESERVE_COPIED);
    atomic_store_explicit(&frame_at(ring, tail)->state, READY, memory_order_release);
    STEP(RESERVE_READY);
    unlock(&h->slots[slot].mutex);
    *done += 1;
    return RING_OK;
}

static int put_once(struct ring *ring, const struct ring_message *messages, size_t count,
                    size_t *done, const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    STEP(PUT_ENTERED);
    int result = lock(ring, &h->put_mutex, wait);
    if (result != RING_OK)
        return result;
    STEP(PUT_LOCKED);
    if (is_shut(h)) {
        unlock(&h->put_mutex);
        return RING_CLOSED;
    }
    if (messages->length <= RING_LARGE)
        return put_small(ring, messages, count, done, 0);
    return put_large(ring, messages, done);
}

int ring_try_put(struct ring *ring, const struct ring_message *messages, size_t count,
                 size_t *done)
{
    if (messages->length > RING_LARGE)
        return RING_BUSY; /* a long copy is for those who have let go of the interpreter lock */
    return put_once(ring, messages, count, done, NULL);
}

/* After a sleep, under the lock that publishing needs: was there something, and nobody said so? */
static void check_belt(struct ring_header *h, int slept, uint32_t value, _Atomic uint32_t *word)
{
    if (slept == ETIMEDOUT && atomic_load(word) == value)
        atomic_fetch_add(&h->missed_wakes, 1);
}

/* Returns RING_OK when `need` bytes may have become free. */
static int wait_space(struct ring *ring, uint64_t need, const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    uint32_t value = 0;
    int slept = 0;
    uint64_t seen = atomic_load_explicit(&h->head, memory_order_acquire);
    uint64_t tail = tail_now(h);
    if (tail + need - seen <= ring->capacity ||
        spin_until_moved(ring, &ring->put_spin, head_now, seen, wait->deadline))
        return RING_OK;
    for (;;) {
        int result = lock(ring, &h->get_mutex, wait);
        if (result != RING_OK)
            return result;
        sweep(ring);
        seen = atomic_load_explicit(&h->head, memory_order_relaxed);
        tail = tail_now(h);
        int roomy = tail + need - seen <= ring->capacity;
        if (roomy)
            check_belt(h, slept, value, &h->space_word);
        else if (is_shut(h))
            result = RING_CLOSED;
        else if (ring_now() >= wait->deadline)
            result = RING_FULL;
        uint64_t state = atomic_load_explicit(&frame_at(ring, seen)->state, memory_order_acquire);
        if (roomy || result != RING_OK) {
            unlock(&h->get_mutex);
            return result;
        }
        slept = 0;
        if (kind_of(state) == TAKEN || kind_of(state) == RESERVED) {
            unlock(&h->get_mutex);
            result = wait_for_copier(ring, seen, state, wait, RING_FULL);
            if (result != RING_OK)
                return result;
            continue;
        }
        h->space_wanted = earlier(h->space_wanted, tail + need - ring->capacity);
        value = atomic_load(&h->space_word);
        STEP(WAIT_SPACE);
        unlock(&h->get_mutex);
        if (atomic_load(&ring->closing))
            return RING_INTERRUPTED;
        slept = sleep_on(&h->space_word, value, earlier(wait->deadline, ring_now() + RECHECK_NS));
        if (slept == EINTR)
            return RING_INTERRUPTED;
    }
}

int ring_put(struct ring *ring, const struct ring_message *messages, size_t count, size_t *done,
             const struct ring_wait *wait)
{
    for (;;) {
        if (atomic_load(&ring->closing))
            return RING_INTERRUPTED;
        int result = put_once(ring, messages, count, done, wait);
        if (result == RING_FULL)
            result = wait_space(ring, ring_footprint(messages->length), wait);
        else
            return result;
        if (result != RING_OK)
            return result;
    }
}

/* ---- get ----------------------------------------------------------------------------------- */

enum look { LOOK_TAKE, LOOK_SKIP, LOOK_LARGE, LOOK_PENDING, LOOK_END, LOOK_CORRUPT };

/* Under get_mutex: what is to be done about the frame at `position`? */
static enum look look_at(struct ring *ring, uint64_t position, uint64_t *state)
{
    struct ring_header *h = ring->header;
    if (position >= h->tail_seen) {
        h->tail_seen = tail_now(h);
        if (position >= h->tail_seen)
            return LOOK_END;
    }
    struct frame *frame = frame_at(ring, position);
    *state = atomic_load_explicit(&frame->state, memory_order_acquire);
    if (frame->length > ring->capacity ||
        ring_footprint(frame->length) > h->tail_seen - position)
        return LOOK_CORRUPT;
    switch (kind_of(*state)) {
    case READY:
        return frame->length > RING_LARGE ? LOOK_LARGE : LOOK_TAKE;
    case RESERVED:
        return bury_orphan(ring, frame, *state) ? LOOK_SKIP : LOOK_PENDING;
    case TAKEN:
    case DONE:
        return LOOK_SKIP;
    default:
        return LOOK_CORRUPT;
    }
}

static uint64_t scan_start(const struct ring_header *h)
{
    uint64_t head = atomic_load_explicit(&h->head, memory_order_relaxed);
    return h->scan > head ? h->scan : head;
}

/* Under get_mutex: the frames [start, end) have been copied out; let them go. */
static void consume(struct ring *ring, uint64_t start, uint64_t end)
{
    struct ring_header *h = ring->header;
    if (atomic_load_explicit(&h->head, memory_order_relaxed) == start) {
        publish_head(h, end);
        h->scan = end;
        return;
    }
    for (uint64_t p = start; p < end; p += ring_footprint(frame_at(ring, p)->length)) {
        atomic_store_explicit(&frame_at(ring, p)->state, DONE, memory_order_release);
        STEP(GET_MARKED);
    }
    h->scan = end;
    sweep(ring);
}

/* Under get_mutex: finds the run of small frames to take, or says what comes instead. */
static int find_run(struct ring *ring, struct ring_batch *batch, uint64_t *start, uint64_t *end)
{
    struct ring_header *h = ring->header;
    uint64_t position = scan_start(h), state = 0;
    batch->count = 0;
    *start = position;
    for (;;) {
        enum look look = look_at(ring, position, &state);
        uint64_t length = look == LOOK_END ? 0 : frame_at(ring, position)->length;
        uint64_t next = position + ring_footprint(length);
        *end = position;
        if (look == LOOK_SKIP && batch->count == 0) {
            *start = position = h->scan = next;
            continue;
        }
        if (look == LOOK_TAKE && batch->count < batch->limit && next - *start <= RING_BATCH) {
            batch->count++;
            position = next;
            continue;
        }
        if (batch->count > 0)
            return RING_OK;
        batch->position = batch->large_position = position;
        batch->large_length = length;
        batch->state = state;
        batch->tail_seen = h->tail_seen;
        return look == LOOK_END       ? RING_EMPTY
               : look == LOOK_LARGE   ? RING_LARGE_FRAME
               : look == LOOK_PENDING ? RING_PENDING
                                      : RING_CORRUPT;
    }
}

static int take(struct ring *ring, struct ring_batch *batch, const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    uint64_t start, end;
    STEP(GET_ENTERED);
    int result = lock(ring, &h->get_mutex, wait);
    if (result != RING_OK)
        return result;
    STEP(GET_LOCKED);
    result = find_run(ring, batch, &start, &end);
    if (result == RING_OK) {
        copy_out(ring, start, batch->bytes, end - start);
        STEP(GET_COPIED);
        consume(ring, start, end);
        batch->was_last = end == h->tail_seen;
    } else if (start != atomic_load_explicit(&h->head, memory_order_relaxed)) {
        sweep(ring); /* frames of the dead may have been skipped */
    }
    unlock(&h->get_mutex);
    STEP(GET_UNLOCKED);
    return result;
}

/* Whether consumers have nothing more to hope for.  The order of the looks matters: nothing is
 * published after the end. */
static int is_over(struct ring_header *h, uint64_t tail_seen)
{
    return is_shut(h) && tail_now(h) == tail_seen;
}

/* Returns RING_OK when tail has moved on from `seen`. */
static int wait_data(struct ring *ring, uint64_t seen, const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    int slept = 0;
    if (is_over(h, seen))
        return RING_CLOSED;
    if (wait->deadline == 0)
        return RING_EMPTY;
    if (spin_until_moved(ring, &ring->get_spin, tail_now, seen, wait->deadline))
        return RING_OK;
    for (;;) {
        uint32_t value = atomic_fetch_or(&h->commits, COMMITS_SLEEPERS) | COMMITS_SLEEPERS;
        STEP(WAIT_DATA);
        if (tail_now(h) != seen) {
            atomic_fetch_add(&h->missed_wakes, slept == ETIMEDOUT);
            return RING_OK;
        }
        if (value & COMMITS_SHUT)
            return RING_CLOSED;
        uint64_t now = ring_now();
        if (now >= wait->deadline)
            return RING_EMPTY;
        if (atomic_load(&ring->closing))
            return RING_INTERRUPTED;
        slept = sleep_on(&h->commits, value, earlier(wait->deadline, now + RECHECK_NS));
        if (slept == EINTR)
            return RING_INTERRUPTED;
    }
}

int ring_try_get(struct ring *ring, struct ring_batch *batch)
{
    return take(ring, batch, NULL);
}

int ring_get(struct ring *ring, struct ring_batch *batch, const struct ring_wait *wait)
{
    for (;;) {
        if (atomic_load(&ring->closing))
            return RING_INTERRUPTED;
        int result = take(ring, batch, wait);
        if (result == RING_EMPTY)
            result = wait_data(ring, batch->tail_seen, wait);
        else if (result == RING_PENDING)
            result = wait_for_copier(ring, batch->position, batch->state, wait, RING_EMPTY);
        else
            return result;
        if (result != RING_OK)
            return result;
    }
}

/* Takes the large frame that ring_get has announced, if it is still the next. */
int ring_claim(struct ring *ring, const struct ring_batch *batch, uint8_t *into,
               const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    uint64_t position = batch->large_position, length = batch->large_length, state, start, end;
    struct ring_batch again = {.limit = 0};
    uint32_t generation;
    int result = lock(ring, &h->get_mutex, wait);
    if (result != RING_OK)
        return result;
    if (find_run(ring, &again, &start, &end) != RING_LARGE_FRAME || start != position ||
        again.large_length != length) {
        unlock(&h->get_mutex);
        return RING_MOVED;
    }
    int slot = borrow_slot(h, &generation);
    if (slot < 0) { /* all slots busy: copy under the lock */
        copy_out(ring, position + RING_FRAME_HEADER, into, length);
        consume(ring, position, position + ring_footprint(length));
        unlock(&h->get_mutex);
        return RING_OK;
    }
    if (h->space_wanted != UINT64_MAX)
        wake_producers(h); /* from now on they have to wait for the slot, not for the word */
    STEP(CLAIM_WOKEN);
    struct frame *frame = frame_at(ring, position);
    state = state_of(TAKEN, (unsigned)slot, generation);
    atomic_store_explicit(&frame->state, state, memory_order_release);
    STEP(CLAIM_TAKEN);
    h->scan = position + ring_footprint(length);
    unlock(&h->get_mutex);
    STEP(CLAIM_UNLOCKED);
    copy_out(ring, position + RING_FRAME_HEADER, into, length / 2);
    STEP(CLAIM_HALF);
    copy_out(ring, position + RING_FRAME_HEADER + length / 2, into + length / 2,
             length - length / 2);
    STEP(CLAIM_COPIED);
    atomic_store_explicit(&frame->state, DONE, memory_order_release);
    STEP(CLAIM_DONE);
    unlock(&h->slots[slot].mutex);
    /* The frame is ours whatever happens now; if the lock cannot be had, others will sweep. */
    if (lock(ring, &h->get_mutex, wait) == RING_OK) {
        sweep(ring);
        STEP(CLAIM_SWEPT);
        unlock(&h->get_mutex);
    }
    return RING_OK;
}

/* ---- the whole queue ----------------------------------------------------------------------- */

int ring_shutdown(struct ring *ring, const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    int result = lock(ring, &h->put_mutex, wait);
    if (result != RING_OK)
        return result;
    result = lock(ring, &h->get_mutex, wait);
    if (result == RING_OK) {
        wake_producers(h);
        STEP(SHUT_WOKEN);
        if (!is_shut(h))
            commit(h, COMMITS_SHUT);
        STEP(SHUT_PUBLISHED);
        unlock(&h->get_mutex);
    }
    unlock(&h->put_mutex);
    return result;
}

int ring_count(struct ring *ring, uint64_t *count, const struct ring_wait *wait)
{
    struct ring_header *h = ring->header;
    int result = lock(ring, &h->get_mutex, wait);
    if (result != RING_OK)
        return result;
    uint64_t position = scan_start(h), state;
    *count = 0;
    for (;;) {
        enum look look = look_at(ring, position, &state);
        if (look == LOOK_END || look == LOOK_CORRUPT) {
            result = look == LOOK_END ? RING_OK : RING_CORRUPT;
            break;
        }
        *count += look != LOOK_SKIP;
        position += ring_footprint(frame_at(ring, position)->length);
    }
    unlock(&h->get_mutex);
    return result;
}

int ring_is_empty(const struct ring *ring)
{
    /* A stale scan can only make the queue look fuller, for one who does not take the lock. */
    struct ring_header *h = ring->header;
    uint64_t tail = tail_now(h);
    return atomic_load_explicit(&h->head, memory_order_acquire) == tail || h->scan == tail;
}

uint64_t ring_tail(const struct ring *ring)
{
    return tail_now(ring->header);
}

uint64_t ring_free_bytes(const struct ring *ring)
{
    struct ring_header *h = ring->header;
    uint64_t head = atomic_load_explicit(&h->head, memory_order_acquire);
    uint64_t used = tail_now(h) - head;
    return used < ring->capacity ? ring->capacity - used : 0; /* head may be old by now */
}

/* Makes the threads that wait through this handle return RING_INTERRUPTED.  Sleepers elsewhere
 * are woken too, look, and sleep again; they have to re-register, so requests stay valid. */
void ring_abandon_waits(struct ring *ring)
{
    atomic_store(&ring->closing, 1);
    stir_consumers(ring->header);
    wake_all(&ring->header->space_word);
}
