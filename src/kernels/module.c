/* The module: its types, and what needs none. */
#include "kernels.h"

PyDoc_STRVAR(narrow_doc, "narrow(values, low, high, out, /)\n--\n\n"
                         "Round rows to float32, and say whether every value is there and within the bounds.\n\n"
                         "Args:\n"
                         "    values: float64 or the bytes of these, rows x columns, in one piece.\n"
                         "    low: float64, a bound for each column.\n"
                         "    high: The same, above.\n"
                         "    out: float32, as many as there are values.\n");

static PyObject *narrow(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *lows, *highs, *found;
    Py_buffer given = {0}, low = {0}, high = {0}, out = {0};
    bool whole = true;
    if (!PyArg_ParseTuple(args, "y*OOO", &given, &lows, &highs, &found))
        return NULL;
    if (vector_take(&low, lows, 'd', false) == 0 && vector_take(&high, highs, 'd', false) == 0 &&
        vector_take(&out, found, 'f', true) == 0) {
        Py_ssize_t columns = low.len / (Py_ssize_t)sizeof(double), total = given.len / (Py_ssize_t)sizeof(double);
        if (low.len != high.len || given.len % (Py_ssize_t)sizeof(double) || out.len != total * (Py_ssize_t)sizeof(float) ||
            (columns ? total % columns : total)) {
            PyErr_SetString(PyExc_ValueError, "the values are no rows of these columns");
        } else {
            const double *from = low.buf, *to = high.buf;
            const char *values = given.buf;
            float *into = out.buf;
            for (Py_ssize_t row = 0; row < total; row += columns)
                for (Py_ssize_t c = 0; c < columns; c++) {
                    double value;
                    memcpy(&value, values + (row + c) * (Py_ssize_t)sizeof value, sizeof value);
                    whole &= (value >= from[c]) & (value <= to[c]);
                    into[row + c] = (float)value;
                }
        }
    }
    Py_buffer *taken[] = {&given, &low, &high, &out};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (taken[i]->obj != NULL)
            PyBuffer_Release(taken[i]);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(whole);
}

#ifdef WIDE
bool wide;
#endif

/* Uses wide registers, or does not; returns whether they are used. */
static bool use_wide(bool wish)
{
#ifdef WIDE
    __builtin_cpu_init();
    return wide = wish && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
#else
    (void)wish;
    return false;
#endif
}

PyDoc_STRVAR(widen_doc, "widen(wish, /)\n--\n\n"
                        "Use the wide registers of this processor from now on, or do not; return whether they are used.\n\n"
                        "They are used where there are any. Tests hold what both make against each other.\n");

static PyObject *widen(PyObject *Py_UNUSED(module), PyObject *wish)
{
    int wished = PyObject_IsTrue(wish);
    return wished < 0 ? NULL : PyBool_FromLong(use_wide(wished));
}

static PyMethodDef functions[] = {
    {"narrow", narrow, METH_VARARGS, narrow_doc},
    CALLED("span", answers_span, answers_span_doc),
    CALLED("exponents", answers_exponents, answers_exponents_doc),
    CALLED("shares", answers_shares, answers_shares_doc),
    CALLED("find", heads_find, heads_find_doc),
    {"letters", letters, METH_VARARGS, letters_doc},
    {"lift", tensors_lift, METH_O, tensors_lift_doc},
    {"bounds", answers_bounds, METH_O, answers_bounds_doc},
    {"widen", widen, METH_O, widen_doc},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    PyType_Spec *specs[] = {&reader_spec, &forest_spec, &tails_spec};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        int added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
        if (added < 0)
            return -1;
    }
    use_wide(true);
    return PyModule_AddIntConstant(module, "VERSION", KERNELS_VERSION);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "modelyard.inference._kernels",
    .m_doc = "What is done for each value of each row, compiled.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&definition); }
