/* Arrays as they come from numpy, and what is wrong with those that are none. */
#include "kernels.h"

static int refuse(PyObject *kind, const char *what)
{
    PyErr_SetString(kind, what);
    return -1;
}

bool are_given(Py_ssize_t count, Py_ssize_t wanted)
{
    if (count != wanted)
        PyErr_Format(PyExc_TypeError, "%zd arguments are given, not %zd", count, wanted);
    return count == wanted;
}

static int view_take(Py_buffer *view, PyObject *array, char kind, int flags)
{
    if (PyObject_GetBuffer(array, view, flags | PyBUF_FORMAT) < 0)
        return -1;
    if (view->format == NULL || view->format[0] != kind || view->format[1] != '\0') {
        PyBuffer_Release(view);
        return refuse(PyExc_TypeError, kind == 'f' ? "not an array of float32" : "not an array of float64");
    }
    return 0;
}

int vector_take(Py_buffer *view, PyObject *array, char kind, bool writable)
{
    return view_take(view, array, kind, PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0));
}

int matrix_take(Matrix *matrix, PyObject *array)
{
    if (view_take(&matrix->view, array, 'f', PyBUF_STRIDES) < 0)
        return -1;
    if (matrix->view.ndim != 2) {
        PyBuffer_Release(&matrix->view);
        return refuse(PyExc_TypeError, "not a matrix");
    }
    matrix->rows = matrix->view.shape[0];
    matrix->columns = matrix->view.shape[1];
    return 0;
}

Py_ssize_t *places_take(PyObject *sequence, Py_ssize_t most, Py_ssize_t *count)
{
    *count = PySequence_Size(sequence);
    if (*count < 0)
        return NULL;
    Py_ssize_t *places = PyMem_Calloc((size_t)*count + 1, sizeof *places);
    if (places == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < *count; i++) {
        PyObject *item = PySequence_GetItem(sequence, i);
        places[i] = item == NULL ? -1 : PyNumber_AsSsize_t(item, PyExc_ValueError);
        Py_XDECREF(item);
        if (!PyErr_Occurred() && (places[i] < 0 || places[i] > most))
            refuse(PyExc_ValueError, "a place lies outside");
        if (PyErr_Occurred()) {
            PyMem_Free(places);
            return NULL;
        }
    }
    return places;
}
