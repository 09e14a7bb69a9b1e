/* How unlike others rows are: see `modelyard.checks.strange`. */
#include "kernels.h"

typedef struct {
    PyObject_HEAD
    Columns columns;
    /* Of each knot what is said below it and on it, and behind the last of a column once more; two of each. */
    double *said;
} Tails;

static void tails_dealloc(PyObject *object)
{
    Tails *self = (Tails *)object;
    PyTypeObject *type = Py_TYPE(object);
    columns_drop(&self->columns);
    PyMem_Free(self->said);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *tails_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"knots", "sizes", "said", NULL};
    PyObject *knots, *sizes, *said;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO", names, &knots, &sizes, &said))
        return NULL;
    Tails *self = (Tails *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_buffer view;
    if (columns_take(&self->columns, knots, sizes) < 0 || vector_take(&view, said, 'd', false) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    Py_ssize_t places = self->columns.starts[self->columns.count] + self->columns.count;
    if (view.len != places * 2 * (Py_ssize_t)sizeof(double))
        PyErr_SetString(PyExc_ValueError, "not two numbers for each knot and one place more a column");
    else if ((self->said = PyMem_Malloc((size_t)view.len + sizeof(double))) == NULL)
        PyErr_NoMemory();
    else
        memcpy(self->said, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (PyErr_Occurred()) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(largest_doc, "largest(matrix, more, /)\n--\n\n"
                          "Return the largest sum of a row, and the largest value of any.\n\n"
                          "Args:\n"
                          "    matrix: float32, rows x columns; a missing value counts nothing.\n"
                          "    more: float64, what else is said of the rows: some columns x rows, or None.\n");

static PyObject *tails_largest(PyObject *object, PyObject *args)
{
    Tails *self = (Tails *)object;
    PyObject *array, *others;
    Matrix matrix;
    Py_buffer more = {0};
    if (!PyArg_ParseTuple(args, "OO", &array, &others) || matrix_take(&matrix, array) < 0)
        return NULL;
    if (others != Py_None && vector_take(&more, others, 'd', false) < 0) {
        PyBuffer_Release(&matrix.view);
        return NULL;
    }
    double sum = 0, one = 0;
    Py_ssize_t beside = matrix.rows ? more.len / (Py_ssize_t)sizeof(double) / matrix.rows : 0;
    if (matrix.columns != self->columns.count || more.len != beside * matrix.rows * (Py_ssize_t)sizeof(double)) {
        PyErr_SetString(PyExc_ValueError, "the columns are not those of the profile");
    } else {
        for (Py_ssize_t r = 0; r < matrix.rows; r++) {
            double whole = 0;
            for (Py_ssize_t c = 0; c < matrix.columns; c++) {
                float value = matrix_at(&matrix, r, c);
                if (value != value)
                    continue;
                Py_ssize_t below = columns_below(&self->columns, c, value);
                Py_ssize_t knot = self->columns.starts[c] + below;
                bool on = knot < self->columns.starts[c + 1] && self->columns.knots[knot] == value;
                double said = self->said[2 * (knot + c) + on];
                whole += said;
                one = said > one ? said : one;
            }
            for (Py_ssize_t c = 0; c < beside; c++) {
                double said = ((const double *)more.buf)[c * matrix.rows + r];
                whole += said;
                one = said > one ? said : one;
            }
            sum = whole > sum ? whole : sum;
        }
    }
    PyBuffer_Release(&matrix.view);
    if (more.obj != NULL)
        PyBuffer_Release(&more);
    return PyErr_Occurred() ? NULL : Py_BuildValue("dd", sum, one);
}

static PyMethodDef tails_methods[] = {
    {"largest", tails_largest, METH_VARARGS, largest_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(tails_doc, "Tails(knots, sizes, said)\n--\n\n"
                        "What a profile says of the values of each column.\n\n"
                        "Args:\n"
                        "    knots: float32, those of all columns, sorted within each.\n"
                        "    sizes: How many each has.\n"
                        "    said: float64, of each knot what is said below it and on it, and of each column's end.\n");

static PyType_Slot tails_slots[] = {
    {Py_tp_doc, (void *)tails_doc},       {Py_tp_new, tails_new}, {Py_tp_dealloc, tails_dealloc},
    {Py_tp_methods, tails_methods}, {0, NULL},
};

PyType_Spec tails_spec = {
    .name = "modelyard.inference._kernels.Tails",
    .basicsize = sizeof(Tails),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = tails_slots,
};
