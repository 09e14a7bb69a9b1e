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

/* The largest sum of a row, and the largest value of any. */
typedef struct {
    double sum, one;
} Largest;

static inline void add(double said, double *sum, Largest *largest)
{
    *sum += said;
    largest->one = said > largest->one ? said : largest->one;
}

/* Args: more: of each row what else is said, columns x rows; `beside` is how many columns. */
INLINE Largest largest_by(const Tails *self, const Matrix *matrix, const double *more, Py_ssize_t beside,
                          NodeBelow *node_below)
{
    const Columns columns = self->columns;
    Py_ssize_t stride = matrix->view.strides[1];
    Largest largest = {0, 0};
    for (Py_ssize_t row = 0; row < matrix->rows; row++) {
        const char *values = matrix_row(matrix, row);
        double sum = 0;
        for (Py_ssize_t c = 0; c < columns.count; c++) {
            float value = row_value(values, c, stride);
            Py_ssize_t below = columns_below(&columns, c, value, node_below);
            /* Behind the last knot of a column stands NaN, which nothing is on. */
            bool on = columns.levels[columns.tops[c + 1] - 1][below] == value;
            add(value == value ? self->said[2 * (columns.starts[c] + c + below) + on] : 0, &sum, &largest);
        }
        for (Py_ssize_t c = 0; c < beside; c++)
            add(more[c * matrix->rows + row], &sum, &largest);
        largest.sum = sum > largest.sum ? sum : largest.sum;
    }
    return largest;
}

#ifdef WIDE
WIDE static Largest largest_wide(const Tails *self, const Matrix *matrix, const double *more, Py_ssize_t beside)
{
    return largest_by(self, matrix, more, beside, node_below_wide);
}
#endif

static Largest largest_of(const Tails *self, const Matrix *matrix, const double *more, Py_ssize_t beside)
{
#ifdef WIDE
    if (wide)
        return largest_wide(self, matrix, more, beside);
#endif
    return largest_by(self, matrix, more, beside, node_below_plain);
}

PyDoc_STRVAR(largest_doc, "largest(matrix, more, /)\n--\n\n"
                          "Return the largest sum of a row, and the largest value of any.\n\n"
                          "Args:\n"
                          "    matrix: float32, rows x columns; a missing value counts nothing.\n"
                          "    more: float64, what else is said of the rows: some columns x rows, or None.\n");

static PyObject *tails_largest(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Tails *self = (const Tails *)object;
    Matrix matrix;
    Py_buffer more = {0};
    Largest largest = {0, 0};
    if (!are_given(count, 2) || matrix_take(&matrix, args[0]) < 0)
        return NULL;
    if (args[1] == Py_None || vector_take(&more, args[1], 'd', false) == 0) {
        Py_ssize_t many = more.len / (Py_ssize_t)sizeof(double), beside = matrix.rows ? many / matrix.rows : 0;
        if (matrix.columns != self->columns.count || many != beside * matrix.rows)
            PyErr_SetString(PyExc_ValueError, "the columns are not those of the profile");
        else
            largest = largest_of(self, &matrix, more.buf, beside);
    }
    PyBuffer_Release(&matrix.view);
    if (more.obj != NULL)
        PyBuffer_Release(&more);
    return PyErr_Occurred() ? NULL : Py_BuildValue("dd", largest.sum, largest.one);
}

static PyMethodDef tails_methods[] = {
    CALLED("largest", tails_largest, largest_doc),
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
