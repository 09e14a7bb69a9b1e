/* Values that divide the columns of a matrix, as trees that are searched without a branch. */
#include "kernels.h"

#include <math.h>

/* Values that all nodes of a level have room for; the last is never full, so that nobody has to ask where it ends. */
static Py_ssize_t room_of(Py_ssize_t values) { return (values / NODE + 1) * NODE; }

/* Counts what the trees of all columns need: levels, and values that these have room for. */
static void measure(const Columns *columns, Py_ssize_t *levels, Py_ssize_t *room)
{
    *levels = *room = 0;
    for (Py_ssize_t c = 0; c < columns->count; c++) {
        Py_ssize_t left = columns->starts[c + 1] - columns->starts[c], more = true;
        for (; more; left /= NODE) {
            more = left >= NODE;
            *room += room_of(left);
            *levels += 1;
        }
    }
}

/* Builds the tree of each column: its values below, and on each level above the last value of every full node. */
static void build(Columns *columns, const float *values, float *room)
{
    Py_ssize_t level = 0;
    for (Py_ssize_t c = 0; c < columns->count; c++) {
        Py_ssize_t size = columns->starts[c + 1] - columns->starts[c];
        columns->tops[c] = level;
        for (Py_ssize_t left = size; left >= NODE; left /= NODE)
            level++;
        Py_ssize_t at = level++;
        memcpy(room, values + columns->starts[c], (size_t)size * sizeof(float));
        for (;; at--) {
            columns->levels[at] = room;
            room += room_of(size);
            /* Nothing is below it, and nothing equals it. */
            for (float *rest = columns->levels[at] + size; rest < room; rest++)
                *rest = NAN;
            if (at == columns->tops[c])
                break;
            size /= NODE;
            for (Py_ssize_t i = 0; i < size; i++)
                room[i] = columns->levels[at][i * NODE + NODE - 1];
        }
    }
    columns->tops[columns->count] = level;
}

/* Copies the values of all columns, whose first ones are known. Returns false where there is no memory. */
static bool plant(Columns *columns, const float *values)
{
    Py_ssize_t levels, room;
    measure(columns, &levels, &room);
    columns->tops = PyMem_Calloc((size_t)columns->count + 1, sizeof *columns->tops);
    columns->levels = PyMem_Calloc((size_t)levels + 1, sizeof *columns->levels);
    columns->memory = PyMem_Malloc((size_t)room * sizeof(float) + LINE);
    if (columns->tops == NULL || columns->levels == NULL || columns->memory == NULL)
        return false;
    build(columns, values, aligned(columns->memory));
    return true;
}

int columns_take(Columns *columns, PyObject *knots, PyObject *sizes)
{
    Py_buffer view;
    if (vector_take(&view, knots, 'f', false) < 0)
        return -1;
    Py_ssize_t total = view.len / (Py_ssize_t)sizeof(float);
    columns->starts = places_take(sizes, total, &columns->count);
    if (columns->starts != NULL) {
        Py_ssize_t start = 0;
        for (Py_ssize_t c = 0; c <= columns->count && start <= total; c++) {
            Py_ssize_t size = columns->starts[c];
            columns->starts[c] = start;
            start += size;
        }
        if (start != total)
            PyErr_SetString(PyExc_ValueError, "there are not as many knots as columns have");
        else if (!plant(columns, view.buf))
            PyErr_NoMemory();
    }
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? -1 : 0;
}

void columns_drop(Columns *columns)
{
    PyMem_Free(columns->starts);
    PyMem_Free(columns->tops);
    PyMem_Free(columns->levels);
    PyMem_Free(columns->memory);
}
