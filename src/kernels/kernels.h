/* What is done for each value of each row, compiled; `modelyard.inference.kernels` says when it is used.
 *
 * Each of these has a form in Python that is the specification: both give the same bits, and what a kernel does not
 * take (an escape in a name, a number of thirty digits, a mistake) it leaves to that form, which can say what is wrong.
 * Nothing here raises for what a caller sent, and nothing keeps a pointer into what a caller sent.
 */
#ifndef MODELYARD_KERNELS_H
#define MODELYARD_KERNELS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The same as `modelyard.inference.kernels.VERSION`: raised on both sides with what they call each other. */
#define KERNELS_VERSION 1

/* number.c: Read a JSON number at `p`, which ends with a byte that is part of none.
 *
 * Returns where it ends; NULL if there is none, or one that is not read here. `*value` is the nearest double. */
const char *read_number(const char *p, double *value);

/* columns.c: Values that divide the columns of a matrix, sorted within each. */
typedef struct {
    Py_ssize_t count;   /* columns */
    float *knots;       /* of all columns */
    Py_ssize_t *starts; /* where those of each column begin, and where the last end */
} Columns;

int columns_take(Columns *columns, PyObject *knots, PyObject *sizes);
void columns_drop(Columns *columns);

/* Rows that are looked at together: their searches do not wait for each other. */
enum { TOGETHER = 8 };

/* Finds how many knots of a column are below each of some values, `TOGETHER` of them at most; of a missing one, 0. */
static inline void columns_below(const Columns *columns, Py_ssize_t column, const float *values, int many,
                                 Py_ssize_t *below)
{
    const float *knots = columns->knots + columns->starts[column];
    Py_ssize_t left = columns->starts[column + 1] - columns->starts[column];
    for (int i = 0; i < many; i++)
        below[i] = 0;
    while (left > 1) {
        /* Written without a branch: which half it is cannot be guessed. */
        Py_ssize_t half = left / 2;
        if (many == TOGETHER)
            for (int i = 0; i < TOGETHER; i++)
                below[i] += (knots[below[i] + half - 1] < values[i]) * half;
        else
            for (int i = 0; i < many; i++)
                below[i] += (knots[below[i] + half - 1] < values[i]) * half;
        left -= half;
    }
    for (int i = 0; i < many && left; i++)
        below[i] += knots[below[i]] < values[i];
}

/* buffers.c: Arrays as they come from numpy. */

/* Takes an array of float32 (`f`) or float64 (`d`) that lies in one piece. Returns -1 with an exception if it is none. */
int vector_take(Py_buffer *view, PyObject *array, char kind, bool writable);

/* A matrix of float32, however its rows and columns lie. */
typedef struct {
    Py_buffer view;
    Py_ssize_t rows, columns;
} Matrix;

int matrix_take(Matrix *matrix, PyObject *array);

/* Copies some values of a column. */
static inline void matrix_values(const Matrix *matrix, Py_ssize_t row, Py_ssize_t column, int many, float *values)
{
    const char *at = (const char *)matrix->view.buf + row * matrix->view.strides[0] + column * matrix->view.strides[1];
    for (int i = 0; i < many; i++, at += matrix->view.strides[0])
        memcpy(&values[i], at, sizeof *values);
}

/* Copies a sequence of whole numbers from 0 to `most`. Returns NULL with an exception if it is none; free it. */
Py_ssize_t *places_take(PyObject *sequence, Py_ssize_t most, Py_ssize_t *count);

extern PyType_Spec reader_spec; /* reader.c */
extern PyType_Spec forest_spec; /* forest.c */
extern PyType_Spec tails_spec;  /* tails.c */

#endif
