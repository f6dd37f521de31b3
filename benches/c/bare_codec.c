/* The bare C codec as a Python extension: what the uvloop rival runs on. A Meter seals requests and opens answers, whole
 * WPDUs each; wrong octets raise ValueError. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "asking.h"

typedef struct { PyObject_HEAD Meter meter; } MeterObject;

static EVP_CIPHER_CTX *sealer, *opener;

static int meter_new(MeterObject *self, PyObject *args, PyObject *kwargs) {
    unsigned int number, counter;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "II", &number, &counter)) return -1;
    meter_init(&self->meter, number, counter);
    return 0;
}

/* The APDU of one whole WPDU in a bytes object. */
static const uint8_t *apdu_of(PyObject *octets, int *n) {
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(octets, &data, &size)) return NULL;
    if (size < WRAPPER || size != (Py_ssize_t)(WRAPPER + get16((uint8_t *)data + 6))) {
        PyErr_SetString(PyExc_ValueError, "not one whole WPDU");
        return NULL;
    }
    *n = (int)size - WRAPPER;
    return (const uint8_t *)data + WRAPPER;
}

static PyObject *refused(const char *what) {
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

static PyObject *request_of(int n, const uint8_t *out) { return PyBytes_FromStringAndSize((const char *)out, n); }

static PyObject *associate(MeterObject *self, PyObject *unused) {
    uint8_t out[LONGEST_REQUEST];
    (void)unused;
    return request_of(request_association(&self->meter, sealer, out), out);
}

static PyObject *proof(MeterObject *self, PyObject *aare) {
    uint8_t out[LONGEST_REQUEST];
    int n;
    const uint8_t *apdu = apdu_of(aare, &n);
    if (!apdu) return NULL;
    if (take_association(&self->meter, opener, apdu, n)) return refused("AARE");
    return request_of(request_proof(&self->meter, sealer, out), out);
}

static PyObject *verify(MeterObject *self, PyObject *answer) {
    int n;
    const uint8_t *apdu = apdu_of(answer, &n);
    if (!apdu) return NULL;
    if (take_proof(&self->meter, opener, sealer, apdu, n)) return refused("f(CtoS)");
    Py_RETURN_NONE;
}

static PyObject *get(MeterObject *self, PyObject *unused) {
    uint8_t out[LONGEST_REQUEST];
    (void)unused;
    return request_of(request_get(&self->meter, sealer, out), out);
}

static PyObject *take(MeterObject *self, PyObject *answer) {
    uint32_t value;
    int n;
    const uint8_t *apdu = apdu_of(answer, &n);
    if (!apdu) return NULL;
    if (take_value(&self->meter, opener, apdu, n, &value)) return refused("GET response");
    return PyLong_FromUnsignedLong(value);
}

static PyObject *release(PyObject *self, PyObject *unused) {
    uint8_t out[LONGEST_REQUEST];
    (void)self;
    (void)unused;
    return request_of(request_release(out), out);
}

static PyMethodDef meter_methods[] = {
    {"associate", (PyCFunction)associate, METH_NOARGS, "The AARQ."},
    {"proof", (PyCFunction)proof, METH_O, "Takes the AARE; reply_to_HLS_authentication."},
    {"verify", (PyCFunction)verify, METH_O, "Takes the meter's proof."},
    {"get", (PyCFunction)get, METH_NOARGS, "A GET of 3/1.0.1.8.0.255:2."},
    {"take", (PyCFunction)take, METH_O, "Takes its answer: the value."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject meter_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "bare_codec.Meter",
    .tp_basicsize = sizeof(MeterObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Meter(number, first counter): the asking side of one association.",
    .tp_methods = meter_methods,
    .tp_init = (initproc)meter_new,
    .tp_new = PyType_GenericNew,
};

static PyMethodDef methods[] = {{"release", release, METH_NOARGS, "The RLRQ."}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "bare_codec", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_bare_codec(void) {
    PyObject *made = PyModule_Create(&module);
    sealer = new_context(1);
    opener = new_context(0);
    if (!made || PyType_Ready(&meter_type) < 0 || PyModule_AddObjectRef(made, "Meter", (PyObject *)&meter_type) < 0) return NULL;
    return made;
}
