/* Values that divide the columns of a matrix. */
#include "kernels.h"

int columns_take(Columns *columns, PyObject *knots, PyObject *sizes)
{
    Py_buffer view;
    if (vector_take(&view, knots, 'f', false) < 0)
        return -1;
    Py_ssize_t total = view.len / (Py_ssize_t)sizeof(float);
    columns->starts = places_take(sizes, total, &columns->count);
    columns->knots = PyMem_Malloc((size_t)view.len + sizeof(float));
    if (columns->starts == NULL || columns->knots == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
    } else {
        memcpy(columns->knots, view.buf, (size_t)view.len);
        Py_ssize_t start = 0;
        for (Py_ssize_t c = 0; c <= columns->count && start <= total; c++) {
            Py_ssize_t size = columns->starts[c];
            columns->starts[c] = start;
            start += size;
        }
        if (start != total)
            PyErr_SetString(PyExc_ValueError, "there are not as many knots as columns have");
    }
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? -1 : 0;
}

void columns_drop(Columns *columns)
{
    PyMem_Free(columns->knots);
    PyMem_Free(columns->starts);
}
