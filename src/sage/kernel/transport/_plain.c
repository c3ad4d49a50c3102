/* Plain values as bytes, several times as fast as a pickle.
 *
 * Plain are None, bool, int of 64 bits, float, str, bytes, and tuples, lists and dicts of these; of
 * exactly these types, for what is derived from one of them has to come back as what it was.
 * Anything else is for the caller to pickle.
 *
 * A value is a tag and what belongs to it, numbers in the order of this machine: what is packed
 * goes to a process of the same machine and is kept nowhere.  Strings are numbered as they come; one
 * that has come a short time ago is not written again, but its number is.  So the keys of a batch of
 * dicts are written, made and hashed once.
 *
 * A list or dict that something else holds too may occur in the same record twice, and has to be one
 * object again where it comes out.  So it is not plain; but for the outermost ones, which the caller
 * and the loops of an operator hold on to.
 *
 * Packing runs no code of Python's: nothing can change under it.  Unpacking believes nothing that it
 * reads. */
#include "_plain.h"

#include <stdint.h>
#include <string.h>

enum tag {
    TAG_NONE,
    TAG_FALSE,
    TAG_TRUE,
    TAG_INT_8,
    TAG_INT_32,
    TAG_INT_64,
    TAG_FLOAT,
    TAG_STR, /* and a count of bytes, in 8 bits; with TAG_LONG added in 32, as of all that follow */
    TAG_BYTES,
    TAG_TUPLE,
    TAG_LIST,
    TAG_DICT,
    TAG_SAME, /* and the number of a string, in 8 bits */
    TAG_LONG = 0x10
};

/* With the functions that it is given, which are known where it is called. */
#define INLINED static inline __attribute__((always_inline))

#define DEEPEST 32
#define NUMBERS 256 /* of strings; what comes after as many others has to be written again */
#define PLACES 128  /* where a string's number is looked up; a power of two */
#define FIRST_BYTES 4096
#define MOST_BYTES ((size_t)16 << 20) /* tuples within tuples can come to any size */

/* ---- packing --------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *bytes;
    size_t used, room;
    int own;          /* the depth from which on lists and dicts must belong to their parents alone */
    uint64_t strings; /* how many have been written */
    struct {
        PyObject *string;
        uint64_t number;
    } places[PLACES];
} Packer;

enum outcome { FAILED = -1, PACKED, NOT_PLAIN };

static enum outcome pack(Packer *to, PyObject *value, int depth);

static enum outcome grow(Packer *to, size_t more)
{
    if (more > MOST_BYTES - to->used)
        return NOT_PLAIN;
    size_t room = to->room;
    while (room - to->used < more)
        room *= 2;
    uint8_t *bytes = PyMem_Realloc(to->bytes, room);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    to->bytes = bytes;
    to->room = room;
    return PACKED;
}

static inline enum outcome make_room(Packer *to, size_t more)
{
    return to->room - to->used < more ? grow(to, more) : PACKED;
}

/* Write a tag, and `size` bytes behind it. */
static inline enum outcome put(Packer *to, enum tag tag, const void *data, size_t size)
{
    enum outcome outcome = make_room(to, size + 1);
    if (outcome != PACKED)
        return outcome;
    to->bytes[to->used] = (uint8_t)tag;
    memcpy(to->bytes + to->used + 1, data, size);
    to->used += size + 1;
    return PACKED;
}

/* Write a tag that has a count. */
static inline enum outcome put_count(Packer *to, enum tag tag, Py_ssize_t count)
{
    if (count <= UINT8_MAX) {
        uint8_t few = (uint8_t)count;
        return put(to, tag, &few, sizeof few);
    }
    if (count > INT32_MAX)
        return NOT_PLAIN;
    uint32_t many = (uint32_t)count;
    return put(to, (enum tag)(tag | TAG_LONG), &many, sizeof many);
}

static inline enum outcome put_counted(Packer *to, enum tag tag, const char *data, Py_ssize_t size)
{
    enum outcome outcome = put_count(to, tag, size);
    if (outcome != PACKED)
        return outcome;
    if ((outcome = make_room(to, (size_t)size)) != PACKED)
        return outcome;
    memcpy(to->bytes + to->used, data, (size_t)size);
    to->used += (size_t)size;
    return PACKED;
}

static enum outcome pack_str(Packer *to, PyObject *value)
{
    uintptr_t address = (uintptr_t)value;
    size_t place = ((address >> 4) ^ (address >> 13)) % PLACES;
    if (to->places[place].string == value && to->strings - to->places[place].number <= NUMBERS) {
        uint8_t number = (uint8_t)to->places[place].number;
        return put(to, TAG_SAME, &number, sizeof number);
    }
    Py_ssize_t size;
    const char *data = PyUnicode_AsUTF8AndSize(value, &size);
    if (data == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return FAILED;
        PyErr_Clear(); /* half of a pair of surrogates */
        return NOT_PLAIN;
    }
    to->places[place].string = value;
    to->places[place].number = to->strings++;
    return put_counted(to, TAG_STR, data, size);
}

static enum outcome pack_int(Packer *to, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0)
        return NOT_PLAIN;
    if (number >= INT8_MIN && number <= INT8_MAX) {
        int8_t narrow = (int8_t)number;
        return put(to, TAG_INT_8, &narrow, sizeof narrow);
    }
    if (number >= INT32_MIN && number <= INT32_MAX) {
        int32_t narrow = (int32_t)number;
        return put(to, TAG_INT_32, &narrow, sizeof narrow);
    }
    int64_t wide = number;
    return put(to, TAG_INT_64, &wide, sizeof wide);
}

static enum outcome pack_bytes(Packer *to, PyObject *value)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &data, &size) != 0)
        return FAILED;
    return put_counted(to, TAG_BYTES, data, size);
}

/* `get` is that of tuples or of lists. */
INLINED enum outcome pack_items(Packer *to, enum tag tag, PyObject *value, Py_ssize_t count,
                                PyObject *(*get)(PyObject *, Py_ssize_t), int depth)
{
    enum outcome outcome = put_count(to, tag, count);
    for (Py_ssize_t i = 0; outcome == PACKED && i < count; i++)
        outcome = pack(to, get(value, i), depth);
    return outcome;
}

static enum outcome pack_dict(Packer *to, PyObject *value, int depth)
{
    PyObject *key, *item;
    Py_ssize_t position = 0;
    enum outcome outcome = put_count(to, TAG_DICT, PyDict_Size(value));
    while (outcome == PACKED && PyDict_Next(value, &position, &key, &item)) {
        outcome = pack(to, key, depth);
        if (outcome == PACKED)
            outcome = pack(to, item, depth);
    }
    return outcome;
}

static enum outcome pack(Packer *to, PyObject *value, int depth)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type)
        return pack_str(to, value);
    if (type == &PyLong_Type)
        return pack_int(to, value);
    if (type == &PyFloat_Type) {
        double number = PyFloat_AsDouble(value);
        return put(to, TAG_FLOAT, &number, sizeof number);
    }
    if (value == Py_None)
        return put(to, TAG_NONE, "", 0);
    if (type == &PyBool_Type)
        return put(to, value == Py_True ? TAG_TRUE : TAG_FALSE, "", 0);
    if (type == &PyBytes_Type)
        return pack_bytes(to, value);
    if (depth == DEEPEST)
        return NOT_PLAIN;
    if (type == &PyTuple_Type)
        return pack_items(to, TAG_TUPLE, value, PyTuple_Size(value), PyTuple_GetItem, depth + 1);
    if (depth >= to->own && Py_REFCNT(value) > 1)
        return NOT_PLAIN;
    if (type == &PyList_Type)
        return pack_items(to, TAG_LIST, value, PyList_Size(value), PyList_GetItem, depth + 1);
    if (type == &PyDict_Type)
        return pack_dict(to, value, depth + 1);
    return NOT_PLAIN;
}

PyObject *plain_pack(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *value;
    int own;
    if (!PyArg_ParseTuple(args, "Oi:pack", &value, &own))
        return NULL;
    Packer to = {.bytes = PyMem_Malloc(FIRST_BYTES), .room = FIRST_BYTES, .own = own};
    if (to.bytes == NULL)
        return PyErr_NoMemory();
    to.bytes[to.used++] = PLAIN_MARK;
    enum outcome outcome = pack(&to, value, 0);
    PyObject *packed = NULL;
    if (outcome == PACKED)
        packed = PyBytes_FromStringAndSize((const char *)to.bytes, (Py_ssize_t)to.used);
    else if (outcome == NOT_PLAIN)
        packed = Py_NewRef(Py_None);
    PyMem_Free(to.bytes);
    return packed;
}

/* ---- unpacking ------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *next, *end;
    uint64_t strings;            /* how many have been read */
    PyObject *numbered[NUMBERS]; /* the last of them */
} Unpacker;

static PyObject *unpack(Unpacker *from, int depth);

static PyObject *damaged(const char *how)
{
    return PyErr_Format(PyExc_ValueError, "no packed value: %s", how);
}

/* Read `size` bytes; false, with an error set, if there are fewer. */
static inline int take(Unpacker *from, void *into, size_t size)
{
    if ((size_t)(from->end - from->next) < size) {
        damaged("it ends too early");
        return 0;
    }
    memcpy(into, from->next, size);
    from->next += size;
    return 1;
}

/* Read how many bytes or values follow; at least as many bytes must be left. -1: an error is set. */
static inline Py_ssize_t take_count(Unpacker *from, uint8_t tag)
{
    uint8_t few = 0;
    uint32_t many = 0;
    if (!(tag & TAG_LONG ? take(from, &many, sizeof many) : take(from, &few, sizeof few)))
        return -1;
    Py_ssize_t count = tag & TAG_LONG ? (Py_ssize_t)many : few;
    if (count <= from->end - from->next)
        return count;
    damaged("it ends too early");
    return -1;
}

static PyObject *unpack_str(Unpacker *from, uint8_t tag)
{
    Py_ssize_t size = take_count(from, tag);
    if (size < 0)
        return NULL;
    PyObject *string = PyUnicode_FromStringAndSize((const char *)from->next, size);
    if (string == NULL)
        return NULL;
    from->next += size;
    PyObject **place = &from->numbered[from->strings++ % NUMBERS], *former = *place;
    *place = Py_NewRef(string);
    Py_XDECREF(former);
    return string;
}

static PyObject *unpack_same(Unpacker *from)
{
    uint8_t number;
    if (!take(from, &number, sizeof number))
        return NULL;
    if (from->numbered[number] == NULL)
        return damaged("it repeats a string that has not come");
    return Py_NewRef(from->numbered[number]);
}

static PyObject *unpack_bytes(Unpacker *from, uint8_t tag)
{
    Py_ssize_t size = take_count(from, tag);
    if (size < 0)
        return NULL;
    from->next += size;
    return PyBytes_FromStringAndSize((const char *)from->next - size, size);
}

/* `make` and `set` are those of tuples or of lists. */
INLINED PyObject *unpack_items(Unpacker *from, uint8_t tag, int depth,
                               PyObject *(*make)(Py_ssize_t),
                               int (*set)(PyObject *, Py_ssize_t, PyObject *))
{
    Py_ssize_t count = take_count(from, tag);
    PyObject *items = count < 0 ? NULL : make(count);
    for (Py_ssize_t i = 0; items != NULL && i < count; i++) {
        PyObject *item = unpack(from, depth);
        if (item == NULL || set(items, i, item) != 0)
            Py_CLEAR(items);
    }
    return items;
}

static PyObject *unpack_dict(Unpacker *from, uint8_t tag, int depth)
{
    Py_ssize_t count = take_count(from, tag);
    PyObject *dict = count < 0 ? NULL : PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < count; i++) {
        PyObject *key = unpack(from, depth), *item = key == NULL ? NULL : unpack(from, depth);
        if (item == NULL || PyDict_SetItem(dict, key, item) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(item);
    }
    return dict;
}

static PyObject *unpack_number(Unpacker *from, uint8_t tag)
{
    int8_t narrow;
    int32_t middle;
    int64_t wide;
    double real;
    switch (tag) {
    case TAG_INT_8:
        return take(from, &narrow, sizeof narrow) ? PyLong_FromLong(narrow) : NULL;
    case TAG_INT_32:
        return take(from, &middle, sizeof middle) ? PyLong_FromLong(middle) : NULL;
    case TAG_INT_64:
        return take(from, &wide, sizeof wide) ? PyLong_FromLongLong(wide) : NULL;
    default:
        return take(from, &real, sizeof real) ? PyFloat_FromDouble(real) : NULL;
    }
}

static PyObject *unpack_container(Unpacker *from, uint8_t tag, int depth)
{
    if (depth == DEEPEST)
        return damaged("it is too deep");
    switch (tag & ~TAG_LONG) {
    case TAG_TUPLE:
        return unpack_items(from, tag, depth + 1, PyTuple_New, PyTuple_SetItem);
    case TAG_LIST:
        return unpack_items(from, tag, depth + 1, PyList_New, PyList_SetItem);
    default:
        return unpack_dict(from, tag, depth + 1);
    }
}

static PyObject *unpack(Unpacker *from, int depth)
{
    uint8_t tag;
    if (!take(from, &tag, sizeof tag))
        return NULL;
    switch (tag) {
    case TAG_NONE:
        Py_RETURN_NONE;
    case TAG_FALSE:
        Py_RETURN_FALSE;
    case TAG_TRUE:
        Py_RETURN_TRUE;
    case TAG_INT_8:
    case TAG_INT_32:
    case TAG_INT_64:
    case TAG_FLOAT:
        return unpack_number(from, tag);
    case TAG_STR:
    case TAG_STR | TAG_LONG:
        return unpack_str(from, tag);
    case TAG_SAME:
        return unpack_same(from);
    case TAG_BYTES:
    case TAG_BYTES | TAG_LONG:
        return unpack_bytes(from, tag);
    case TAG_TUPLE:
    case TAG_TUPLE | TAG_LONG:
    case TAG_LIST:
    case TAG_LIST | TAG_LONG:
    case TAG_DICT:
    case TAG_DICT | TAG_LONG:
        return unpack_container(from, tag, depth);
    default:
        return damaged("it has an unknown tag");
    }
}

PyObject *plain_unpack(PyObject *Py_UNUSED(module), PyObject *frame)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(frame, &data, &size) != 0)
        return NULL;
    if (size == 0 || (uint8_t)data[0] != PLAIN_MARK)
        return damaged("it does not begin like one");
    Unpacker from = {.next = (const uint8_t *)data + 1, .end = (const uint8_t *)data + size};
    PyObject *value = unpack(&from, 0);
    for (int i = 0; i < NUMBERS && from.numbered[i] != NULL; i++)
        Py_DECREF(from.numbered[i]);
    if (value != NULL && from.next != from.end) {
        Py_DECREF(value);
        return damaged("something follows it");
    }
    return value;
}
