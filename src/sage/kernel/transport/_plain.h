/* Plain values as bytes: see _plain.c. */
#ifndef SAGE_PLAIN_H
#define SAGE_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The first byte of what is packed; a pickle begins with 0x80. */
#define PLAIN_MARK 0x01

PyObject *plain_pack(PyObject *module, PyObject *args);
PyObject *plain_unpack(PyObject *module, PyObject *frame);

#endif
