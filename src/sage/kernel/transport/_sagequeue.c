/* The Python face of the ring: class Ring, which sage_queue.SageQueue extends.
 *
 * Rules kept here: the interpreter lock is never waited for while a ring lock is held (a ring
 * function never takes it, and none is left in the middle); it is released before every wait and
 * before every copy longer than RING_LARGE; buffers stay pinned while it is released.  The quick
 * path of put and get spins for the ring lock for microseconds and never sleeps, so it keeps the
 * interpreter lock. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_plain.h"
#include "_ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 256 /* messages pinned at a time by put_many */
#define LOCK_PATIENCE_NS UINT64_C(1000000000)
#define LONGEST_TIMEOUT 1e9 /* seconds; more would overflow the clock */

/* Set once when the module is executed; the module refuses sub-interpreters. */
static PyObject *full_error, *empty_error, *closed_error, *handle_closed_error;
static PyObject *too_large_error, *incompatible_error, *corrupt_error, *stalled_error;

typedef struct {
    PyObject_HEAD
    struct ring ring;
    int fd;
    int closed;
    int in_flight; /* calls that may touch the mapping; guarded by the interpreter lock */
    pid_t pid;
    uint8_t *scratch; /* RING_BATCH bytes, lent to one call at a time */
} Queue;

/* ---- entering and leaving -------------------------------------------------------------------- */

static int enter(Queue *self)
{
    if (self->closed) {
        PyErr_SetString(handle_closed_error, "this handle of the queue has been closed");
        return -1;
    }
    self->in_flight++;
    return 0;
}

static void release_mapping(Queue *self)
{
    ring_detach(&self->ring);
    if (self->fd >= 0)
        close(self->fd); /* and with it the shared lock that says we are alive */
    self->fd = -1;
}

static void leave(Queue *self)
{
    if (--self->in_flight == 0 && self->closed)
        release_mapping(self);
}

static PyObject *raise_for(int result)
{
    switch (result) {
    case RING_FULL:
        PyErr_SetNone(full_error);
        break;
    case RING_EMPTY:
        PyErr_SetNone(empty_error);
        break;
    case RING_CLOSED:
        PyErr_SetString(closed_error, "the queue has been shut down");
        break;
    case RING_BUSY:
        PyErr_SetString(stalled_error, "the queue's lock is held by a process that does not run "
                                       "(stopped, or starved of CPU)");
        break;
    default:
        PyErr_SetString(corrupt_error, "the queue's memory does not hold a queue any more: some "
                                       "process has written into it");
    }
    return NULL;
}

/* After RING_INTERRUPTED, with the interpreter lock: 0 to go on, -1 with an exception set. */
static int may_go_on(Queue *self)
{
    if (PyErr_CheckSignals() != 0)
        return -1;
    if (self->closed) {
        PyErr_SetString(handle_closed_error, "this handle was closed while waiting");
        return -1;
    }
    return 0;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static int set_deadline(struct ring_wait *wait, PyObject *block, PyObject *timeout)
{
    int blocking = block == NULL ? 1 : PyObject_IsTrue(block);
    if (blocking < 0)
        return -1;
    uint64_t now = ring_now();
    wait->patience = now + LOCK_PATIENCE_NS;
    if (!blocking) {
        wait->deadline = 0;
        return 0;
    }
    if (timeout == NULL || timeout == Py_None) {
        wait->deadline = RING_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0.0)) {
        PyErr_SetString(PyExc_ValueError, "'timeout' must be a non-negative number");
        return -1;
    }
    wait->deadline =
        seconds > LONGEST_TIMEOUT ? RING_FOREVER : now + (uint64_t)(seconds * 1e9);
    return 0;
}

/* Arguments are `leading` ones by position, then block and timeout by position or name. */
static int parse(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, Py_ssize_t leading,
                 struct ring_wait *wait)
{
    PyObject *options[2] = {NULL, NULL};
    if (nargs < leading || nargs > leading + 2) {
        PyErr_Format(PyExc_TypeError, "expected %zd to %zd positional arguments, got %zd",
                     leading, leading + 2, nargs);
        return -1;
    }
    for (Py_ssize_t i = leading; i < nargs; i++)
        options[i - leading] = args[i];
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_Size(kwnames);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(kwnames, i);
        int which = PyUnicode_CompareWithASCIIString(name, "block") == 0     ? 0
                    : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? 1
                                                                              : -1;
        if (which < 0 || options[which] != NULL) {
            PyErr_Format(PyExc_TypeError, "unexpected or repeated argument %R", name);
            return -1;
        }
        options[which] = args[nargs + i];
    }
    if (options[0] == NULL && options[1] == NULL) { /* the common case needs no clock */
        wait->deadline = RING_FOREVER;
        wait->patience = RING_FOREVER;
        return 0;
    }
    return set_deadline(wait, options[0], options[1]);
}

/* ---- put ------------------------------------------------------------------------------------- */

/* Messages pinned for one put: `parts` and `buffers` run in parallel, one part per buffer. */
struct pinned {
    Py_buffer buffers[CHUNK];
    struct ring_part parts[CHUNK];
    struct ring_message messages[CHUNK];
    size_t buffer_count;
};

static int pin(struct pinned *pinned, PyObject *source)
{
    size_t i = pinned->buffer_count;
    if (PyObject_GetBuffer(source, &pinned->buffers[i], PyBUF_SIMPLE) != 0)
        return -1;
    pinned->parts[i].bytes = pinned->buffers[i].buf;
    pinned->parts[i].length = (uint64_t)pinned->buffers[i].len;
    pinned->buffer_count++;
    return 0;
}

static void unpin(struct pinned *pinned)
{
    for (size_t i = 0; i < pinned->buffer_count; i++)
        PyBuffer_Release(&pinned->buffers[i]);
    pinned->buffer_count = 0;
}

static int check_length(const Queue *self, uint64_t length)
{
    uint64_t most = self->ring.capacity - RING_FRAME_HEADER;
    if (length <= most)
        return 0;
    PyErr_Format(too_large_error, "a message of %llu bytes does not fit this queue: %llu at most",
                 (unsigned long long)length, (unsigned long long)most);
    return -1;
}

/* Puts all messages unless time runs out.  Returns RING_OK, another result, or -1 with an
 * exception set; *done counts the messages put in every case. */
static int put_messages(Queue *self, const struct ring_message *messages, size_t count,
                        size_t *done, const struct ring_wait *wait)
{
    *done = 0;
    while (*done < count) {
        size_t from = *done;
        int result = ring_try_put(&self->ring, messages + from, count - from, done);
        if (result == RING_BUSY || result == RING_FULL) {
            PyThreadState *state = PyEval_SaveThread();
            result = ring_put(&self->ring, messages + from, count - from, done, wait);
            PyEval_RestoreThread(state);
        }
        if (result == RING_INTERRUPTED) {
            if (may_go_on(self) != 0)
                return -1;
        } else if (result != RING_OK) {
            return result;
        }
    }
    return RING_OK;
}

static PyObject *put_one(Queue *self, const struct ring_message *message,
                         const struct ring_wait *wait)
{
    size_t done;
    if (check_length(self, message->length) != 0)
        return NULL;
    int result = put_messages(self, message, 1, &done, wait);
    if (result == RING_OK)
        Py_RETURN_NONE;
    return result < 0 ? NULL : raise_for(result);
}

static PyObject *put_source(Queue *self, PyObject *source, const struct ring_wait *wait)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(source, &buffer, PyBUF_SIMPLE) != 0)
        return NULL;
    PyObject *answer = NULL;
    struct ring_part part = {buffer.buf, (uint64_t)buffer.len};
    struct ring_message message = {&part, 1, part.length};
    if (enter(self) == 0) {
        answer = put_one(self, &message, wait);
        leave(self);
    }
    PyBuffer_Release(&buffer);
    return answer;
}

static PyObject *queue_put(Queue *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    struct ring_wait wait;
    if (parse(args, nargs, kwnames, 1, &wait) != 0)
        return NULL;
    return put_source(self, args[0], &wait);
}

static PyObject *queue_put_nowait(Queue *self, PyObject *source)
{
    struct ring_wait wait;
    return set_deadline(&wait, Py_False, NULL) == 0 ? put_source(self, source, &wait) : NULL;
}

static PyObject *put_pinned_parts(Queue *self, PyObject *parts, const struct ring_wait *wait)
{
    Py_ssize_t count = PyTuple_Size(parts);
    Py_buffer *buffers = PyMem_Calloc((size_t)count + 1, sizeof *buffers);
    struct ring_part *pieces = PyMem_Calloc((size_t)count + 1, sizeof *pieces);
    PyObject *answer = NULL;
    Py_ssize_t pinned = 0;
    struct ring_message message = {pieces, (size_t)count, 0};
    if (buffers == NULL || pieces == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; pinned < count; pinned++) {
        PyObject *source = PyTuple_GetItem(parts, pinned);
        if (PyObject_GetBuffer(source, &buffers[pinned], PyBUF_SIMPLE) != 0)
            goto done;
        pieces[pinned].bytes = buffers[pinned].buf;
        pieces[pinned].length = (uint64_t)buffers[pinned].len;
        message.length += pieces[pinned].length;
    }
    answer = put_one(self, &message, wait);
done:
    while (pinned > 0)
        PyBuffer_Release(&buffers[--pinned]);
    PyMem_Free(buffers);
    PyMem_Free(pieces);
    return answer;
}

static PyObject *queue_put_parts(Queue *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    struct ring_wait wait;
    if (parse(args, nargs, kwnames, 1, &wait) != 0)
        return NULL;
    PyObject *parts = PySequence_Tuple(args[0]), *answer = NULL;
    if (parts == NULL)
        return NULL;
    if (enter(self) == 0) {
        answer = put_pinned_parts(self, parts, &wait);
        leave(self);
    }
    Py_DECREF(parts);
    return answer;
}

/* Puts up to CHUNK messages from `first` on; results as put_messages. */
static int put_chunk(Queue *self, PyObject *messages, Py_ssize_t first, struct pinned *pinned,
                     size_t *done, const struct ring_wait *wait)
{
    Py_ssize_t count = PyTuple_Size(messages) - first;
    int result = -1;
    count = count < CHUNK ? count : CHUNK;
    pinned->buffer_count = 0;
    *done = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (pin(pinned, PyTuple_GetItem(messages, first + i)) != 0 ||
            check_length(self, pinned->parts[i].length) != 0)
            goto done;
        pinned->messages[i] =
            (struct ring_message){&pinned->parts[i], 1, pinned->parts[i].length};
    }
    result = put_messages(self, pinned->messages, (size_t)count, done, wait);
done:
    unpin(pinned);
    return result;
}

static PyObject *put_all(Queue *self, PyObject *messages, const struct ring_wait *wait)
{
    struct pinned *pinned = PyMem_Malloc(sizeof *pinned);
    Py_ssize_t total = PyTuple_Size(messages), put = 0;
    int result = RING_OK;
    if (pinned == NULL)
        return PyErr_NoMemory();
    while (result == RING_OK && put < total) {
        size_t done;
        result = put_chunk(self, messages, put, pinned, &done, wait);
        put += (Py_ssize_t)done;
    }
    PyMem_Free(pinned);
    if (result < 0)
        return NULL;
    /* Like write(2): what has been put is reported, the reason for stopping comes next time. */
    return result == RING_OK || put > 0 ? PyLong_FromSsize_t(put) : raise_for(result);
}

static PyObject *queue_put_many(Queue *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    struct ring_wait wait;
    if (parse(args, nargs, kwnames, 1, &wait) != 0)
        return NULL;
    PyObject *messages = PySequence_Tuple(args[0]), *answer = NULL;
    if (messages == NULL)
        return NULL;
    if (enter(self) == 0) {
        answer = put_all(self, messages, &wait);
        leave(self);
    }
    Py_DECREF(messages);
    return answer;
}

/* ---- get ------------------------------------------------------------------------------------- */

static int borrow_scratch(Queue *self, struct ring_batch *batch)
{
    batch->bytes = self->scratch != NULL ? self->scratch : PyMem_Malloc(RING_BATCH);
    self->scratch = NULL;
    if (batch->bytes != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static void return_scratch(Queue *self, struct ring_batch *batch)
{
    if (self->scratch == NULL)
        self->scratch = batch->bytes;
    else
        PyMem_Free(batch->bytes);
}

/* Room first, then the claim: running out of memory loses nothing. */
static PyObject *claim(Queue *self, struct ring_batch *batch, const struct ring_wait *wait,
                       int *result)
{
    PyObject *message = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)batch->large_length);
    if (message == NULL) {
        *result = -1;
        return NULL;
    }
    uint8_t *into = (uint8_t *)PyBytes_AsString(message);
    PyThreadState *state = PyEval_SaveThread();
    *result = ring_claim(&self->ring, batch, into, wait);
    PyEval_RestoreThread(state);
    if (*result == RING_OK)
        return message;
    Py_DECREF(message);
    return NULL;
}

/* Waits for frames.  RING_OK: either *large is a message or batch->count frames are in
 * batch->bytes.  Otherwise another result, or -1 with an exception set. */
static int next_frames(Queue *self, struct ring_batch *batch, PyObject **large,
                       const struct ring_wait *wait)
{
    *large = NULL;
    for (;;) {
        int result = ring_try_get(&self->ring, batch);
        if (result != RING_OK && result != RING_LARGE_FRAME) {
            PyThreadState *state = PyEval_SaveThread();
            result = ring_get(&self->ring, batch, wait);
            PyEval_RestoreThread(state);
        }
        if (result == RING_LARGE_FRAME)
            *large = claim(self, batch, wait, &result);
        if (result == RING_INTERRUPTED || result == RING_MOVED) {
            if (may_go_on(self) != 0)
                return -1;
        } else {
            return result;
        }
    }
}

static PyObject *frame_bytes(const uint8_t **cursor)
{
    uint64_t length;
    memcpy(&length, *cursor + 8, sizeof length);
    PyObject *message =
        PyBytes_FromStringAndSize((const char *)*cursor + RING_FRAME_HEADER, (Py_ssize_t)length);
    *cursor += ring_footprint(length);
    return message;
}

static PyObject *get_one(Queue *self, const struct ring_wait *wait)
{
    struct ring_batch batch = {.limit = 1};
    PyObject *message = NULL;
    if (enter(self) != 0)
        return NULL;
    if (borrow_scratch(self, &batch) == 0) {
        int result = next_frames(self, &batch, &message, wait);
        if (result > 0) {
            raise_for(result);
        } else if (result == 0 && message == NULL) {
            const uint8_t *cursor = batch.bytes;
            message = frame_bytes(&cursor);
        }
        return_scratch(self, &batch);
    }
    leave(self);
    return message;
}

static PyObject *queue_get(Queue *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    struct ring_wait wait;
    return parse(args, nargs, kwnames, 0, &wait) == 0 ? get_one(self, &wait) : NULL;
}

static PyObject *queue_get_nowait(Queue *self, PyObject *Py_UNUSED(ignored))
{
    struct ring_wait wait;
    return set_deadline(&wait, Py_False, NULL) == 0 ? get_one(self, &wait) : NULL;
}

static int append(PyObject *list, PyObject *message)
{
    if (message == NULL)
        return -1;
    int rc = PyList_Append(list, message);
    Py_DECREF(message);
    return rc;
}

/* Frames that can be had at once. */
static int more_frames(Queue *self, struct ring_batch *batch, PyObject **large,
                       const struct ring_wait *wait)
{
    *large = NULL;
    int result = ring_try_get(&self->ring, batch);
    if (result == RING_LARGE_FRAME)
        *large = claim(self, batch, wait, &result);
    return result;
}

/* Collects what is there, after waiting for the first. */
static int collect(Queue *self, PyObject *list, Py_ssize_t most, const struct ring_wait *wait)
{
    struct ring_batch batch = {.limit = 0};
    Py_ssize_t got = 0;
    int result = RING_OK;
    if (borrow_scratch(self, &batch) != 0)
        return -1;
    while (result == RING_OK && got < most) {
        PyObject *large;
        batch.limit = (size_t)(most - got);
        result = got == 0 ? next_frames(self, &batch, &large, wait)
                          : more_frames(self, &batch, &large, wait);
        if (result == RING_OK && large != NULL) {
            result = append(list, large);
            got++;
        } else if (result == RING_OK) {
            const uint8_t *cursor = batch.bytes;
            for (size_t i = 0; result == RING_OK && i < batch.count; i++)
                result = append(list, frame_bytes(&cursor));
            got += (Py_ssize_t)batch.count;
            if (batch.was_last)
                break;
        }
    }
    return_scratch(self, &batch);
    return result > 0 && got > 0 ? RING_OK : result;
}

static PyObject *queue_get_many(Queue *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    struct ring_wait wait;
    if (parse(args, nargs, kwnames, 1, &wait) != 0)
        return NULL;
    Py_ssize_t most = PyLong_AsSsize_t(args[0]);
    if (most == -1 && PyErr_Occurred())
        return NULL;
    if (most < 1) {
        PyErr_SetString(PyExc_ValueError, "the number of messages to get must be at least 1");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL || enter(self) != 0) {
        Py_XDECREF(list);
        return NULL;
    }
    int result = collect(self, list, most, &wait);
    leave(self);
    if (result == RING_OK)
        return list;
    Py_DECREF(list);
    return result < 0 ? NULL : raise_for(result);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static PyObject *queue_qsize(Queue *self, PyObject *Py_UNUSED(ignored))
{
    struct ring_wait wait;
    uint64_t count = 0;
    if (set_deadline(&wait, Py_False, NULL) != 0 || enter(self) != 0)
        return NULL;
    PyThreadState *state = PyEval_SaveThread();
    int result;
    do
        result = ring_count(&self->ring, &count, &wait);
    while (result == RING_INTERRUPTED);
    PyEval_RestoreThread(state);
    leave(self);
    return result == RING_OK ? PyLong_FromUnsignedLongLong(count) : raise_for(result);
}

static PyObject *queue_empty(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (enter(self) != 0)
        return NULL;
    int empty = ring_is_empty(&self->ring);
    leave(self);
    return PyBool_FromLong(empty);
}

static PyObject *queue_full(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (enter(self) != 0)
        return NULL;
    int full = ring_free_bytes(&self->ring) < ring_footprint(0);
    leave(self);
    return PyBool_FromLong(full);
}

static PyObject *queue_shutdown(Queue *self, PyObject *Py_UNUSED(ignored))
{
    struct ring_wait wait;
    int result;
    if (set_deadline(&wait, Py_False, NULL) != 0 || enter(self) != 0)
        return NULL;
    do {
        PyThreadState *state = PyEval_SaveThread();
        result = ring_shutdown(&self->ring, &wait);
        PyEval_RestoreThread(state);
    } while (result == RING_INTERRUPTED && may_go_on(self) == 0);
    leave(self);
    if (result == RING_OK)
        Py_RETURN_NONE;
    return result == RING_INTERRUPTED ? NULL : raise_for(result);
}

static PyObject *queue_close(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed)
        Py_RETURN_NONE;
    self->closed = 1;
    /* Calls in flight at a fork belong to threads that the child does not have; its mapping is
     * then left to its exit rather than taken from under a thread that might exist. */
    if (self->in_flight == 0)
        release_mapping(self);
    else if (self->pid == getpid())
        ring_abandon_waits(&self->ring);
    Py_RETURN_NONE;
}

static PyObject *queue_statistics(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (enter(self) != 0)
        return NULL;
    struct ring_header *h = self->ring.header;
    unsigned long long head = atomic_load(&h->head), tail = ring_tail(&self->ring);
    uint32_t commits = atomic_load(&h->commits);
    PyObject *answer = Py_BuildValue(
        "{sK sK sK sK sK sK sO sO sO}", "head", head, "tail", tail, "used_bytes",
        tail > head ? tail - head : 0ULL, "recoveries",
        (unsigned long long)atomic_load(&h->recoveries), "missed_wakes",
        (unsigned long long)atomic_load(&h->missed_wakes), "orphans",
        (unsigned long long)atomic_load(&h->orphans), "is_shut_down",
        commits & COMMITS_SHUT ? Py_True : Py_False, "consumers_sleep",
        commits & COMMITS_SLEEPERS ? Py_True : Py_False, "producers_sleep",
        h->space_wanted != UINT64_MAX ? Py_True : Py_False);
    leave(self);
    return answer;
}

static PyObject *get_capacity(Queue *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->ring.capacity);
}

static PyObject *get_identity(Queue *self, void *Py_UNUSED(closure))
{
    if (enter(self) != 0)
        return NULL;
    PyObject *answer = PyLong_FromUnsignedLongLong(self->ring.header->identity);
    leave(self);
    return answer;
}

static PyObject *get_closed(Queue *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int fd, error;
    static char *names[] = {"fd", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:Ring", names, &fd))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Queue *self = (Queue *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->fd = -1;
    self->pid = getpid();
    const char *reason = ring_attach(&self->ring, fd, &error);
    if (reason == NULL) {
        self->fd = fd;
        return (PyObject *)self;
    }
    self->closed = 1;
    Py_DECREF(self);
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyErr_SetString(incompatible_error, reason);
    return NULL;
}

static void queue_dealloc(PyObject *object)
{
    Queue *self = (Queue *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (!self->closed)
        release_mapping(self);
    PyMem_Free(self->scratch);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* ---- module ---------------------------------------------------------------------------------- */

#define FAST METH_FASTCALL | METH_KEYWORDS
#define AS_METHOD(function) (PyCFunction)(void (*)(void))function

static PyMethodDef queue_methods[] = {
    {"put", AS_METHOD(queue_put), FAST, "Put one message."},
    {"put_nowait", AS_METHOD(queue_put_nowait), METH_O, "Put one message or raise queue.Full."},
    {"put_parts", AS_METHOD(queue_put_parts), FAST, "Put the concatenation of buffers."},
    {"put_many", AS_METHOD(queue_put_many), FAST, "Put messages, return how many."},
    {"get", AS_METHOD(queue_get), FAST, "Get one message."},
    {"get_nowait", AS_METHOD(queue_get_nowait), METH_NOARGS, "Get or raise queue.Empty."},
    {"get_many", AS_METHOD(queue_get_many), FAST, "Get one to n messages."},
    {"qsize", AS_METHOD(queue_qsize), METH_NOARGS, "Count the messages."},
    {"empty", AS_METHOD(queue_empty), METH_NOARGS, "Whether nothing is in the queue."},
    {"full", AS_METHOD(queue_full), METH_NOARGS, "Whether not even b'' fits."},
    {"shutdown", AS_METHOD(queue_shutdown), METH_NOARGS, "Close the queue for everybody."},
    {"close", AS_METHOD(queue_close), METH_NOARGS, "Close this handle."},
    {"statistics", AS_METHOD(queue_statistics), METH_NOARGS, "Counters, as a dict."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef queue_properties[] = {
    {"capacity", (getter)get_capacity, NULL, "Size of the ring in bytes.", NULL},
    {"identity", (getter)get_identity, NULL, "Number drawn when the queue was made.", NULL},
    {"closed", (getter)get_closed, NULL, "Whether this handle has been closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot queue_slots[] = {{Py_tp_new, queue_new},
                                    {Py_tp_dealloc, queue_dealloc},
                                    {Py_tp_methods, queue_methods},
                                    {Py_tp_getset, queue_properties},
                                    {Py_tp_doc, "A handle on the queue in a shared file."},
                                    {0, NULL}};

static PyType_Spec queue_spec = {.name = "sage.kernel.transport._sagequeue.Ring",
                                 .basicsize = sizeof(Queue),
                                 .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                                 .slots = queue_slots};

static PyObject *initialise(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd;
    unsigned long long capacity, identity;
    if (!PyArg_ParseTuple(args, "iKK:initialise", &fd, &capacity, &identity))
        return NULL;
    PyThreadState *state = PyEval_SaveThread();
    int error = ring_create(fd, capacity, identity);
    PyEval_RestoreThread(state);
    if (error == 0)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *arm(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *step;
    int signal_number;
    unsigned passages = 1;
    if (!PyArg_ParseTuple(args, "si|I:_arm", &step, &signal_number, &passages))
        return NULL;
    if (ring_arm(step, signal_number, passages) == 0)
        Py_RETURN_NONE;
    return PyErr_Format(PyExc_ValueError, "no step is called %s", step);
}

static PyMethodDef module_methods[] = {
    {"initialise", initialise, METH_VARARGS, "Make an empty queue of a nameless file."},
    {"pack", plain_pack, METH_VARARGS, "Turn a plain value into bytes; None if it is not plain."},
    {"unpack", plain_unpack, METH_O, "Turn what pack returned back into the value."},
    {"_arm", arm, METH_VARARGS, "For tests: signal this process when it passes a step."},
    {NULL, NULL, 0, NULL}};

static int fetch(const char *module_name, const char *name, PyObject **into)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL)
        return -1;
    *into = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *into == NULL ? -1 : 0;
}

static int fetch_errors(void)
{
    const char *errors = "sage.common.errors";
    return fetch("queue", "Full", &full_error) || fetch("queue", "Empty", &empty_error) ||
           fetch(errors, "QueueClosedError", &closed_error) ||
           fetch(errors, "QueueHandleClosedError", &handle_closed_error) ||
           fetch(errors, "MessageTooLargeError", &too_large_error) ||
           fetch(errors, "QueueIncompatibleError", &incompatible_error) ||
           fetch(errors, "QueueCorruptedError", &corrupt_error) ||
           fetch(errors, "QueueStalledError", &stalled_error);
}

static int add_steps(PyObject *module)
{
    PyObject *steps = PyList_New(0);
    if (steps == NULL)
        return -1;
    for (int i = 0; ring_steps[i] != NULL; i++) {
        if (append(steps, PyUnicode_FromString(ring_steps[i])) != 0) {
            Py_DECREF(steps);
            return -1;
        }
    }
    int rc = PyModule_AddObjectRef(module, "_STEPS", steps);
    Py_DECREF(steps);
    return rc;
}

static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT,
                                        .m_name = "_sagequeue",
                                        .m_doc = "The ring buffer of SageQueue, in C.",
                                        .m_size = -1,
                                        .m_methods = module_methods};

PyMODINIT_FUNC PyInit__sagequeue(void)
{
    PyObject *module = PyModule_Create(&module_def);
    if (module == NULL)
        return NULL;
    PyObject *type = PyType_FromSpec(&queue_spec);
    if (type == NULL || fetch_errors() != 0 || add_steps(module) != 0 ||
        PyModule_AddObjectRef(module, "Ring", type) != 0 ||
        PyModule_AddIntConstant(module, "LARGE_BYTES", RING_LARGE) != 0) {
        Py_XDECREF(type);
        Py_DECREF(module);
        return NULL;
    }
    Py_DECREF(type);
    return module;
}
