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

/* For what is part of several loops, each with its own registers. */
#define INLINE static inline __attribute__((always_inline))

/* The loops over trees and tails are compiled once more for the registers of twice the width that most processors of
 * x86-64 have by now (AVX2); `wide` says whether they are used. The code is the same but for `node_below`: what is
 * rounded is rounded one value after the other in either, and so to the same bits. */
#ifdef __x86_64__
#include <immintrin.h>
#define WIDE __attribute__((target("avx2,bmi")))
extern bool wide; /* module.c */
#endif

/* The same as `modelyard.inference.kernels.VERSION`: raised on both sides with what they call each other. */
#define KERNELS_VERSION 4

/* number.c: Read a JSON number at `p`, where at `end` stands a byte that is part of none.
 *
 * Returns where it ends; NULL if there is none, or one that is not read here. `*value` is the nearest double. */
const char *read_number(const char *p, const char *end, double *value);

/* What follows takes something at `p`, and returns where it ends; NULL if it is not there or not read here. */

static inline const char *skip_space(const char *p)
{
    /* Mostly there is none, and one comparison says so. */
    while ((unsigned char)*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

static inline const char *take(const char *p, char c)
{
    p = skip_space(p);
    return *p == c ? skip_space(p + 1) : NULL;
}

static inline const char *take_bytes(const char *p, const char *end, const char *bytes, Py_ssize_t size)
{
    return end - p >= size && memcmp(p, bytes, (size_t)size) == 0 ? p + size : NULL;
}

/* Bytes of a line of the cache: what is read most begins with one. */
enum { LINE = 64 };

/* Returns the first place of some memory that a line begins at; it has room for one line more. */
static inline void *aligned(void *memory) { return (void *)(((uintptr_t)memory + LINE - 1) & ~(uintptr_t)(LINE - 1)); }

/* columns.c: Values that divide the columns of a matrix, sorted within each.
 *
 * Each column is a tree whose nodes hold as many values as a line: the lowest level is its values themselves, the one
 * above has the last value of each full node. So a search takes a node or two, the same whatever the value is, and those
 * of several columns do not wait for each other. Where a node is not full it is filled up with NaN. */
typedef struct {
    Py_ssize_t count;   /* columns */
    Py_ssize_t *starts; /* where the values of each begin among those of all, and where the last end */
    Py_ssize_t *tops;   /* the first level of each, and where those of the last end */
    float **levels;     /* of all columns, of each from the top down to its values */
    void *memory;       /* that they lie in */
} Columns;

int columns_take(Columns *columns, PyObject *knots, PyObject *sizes);
void columns_drop(Columns *columns);

enum { NODE = LINE / sizeof(float) };

/* Counts the values of a node that are below another. */
typedef unsigned NodeBelow(const float *node, float value);

/* Returns how many values of a column are below another; of one that is missing, none. */
INLINE Py_ssize_t columns_below(const Columns *columns, Py_ssize_t column, float value, NodeBelow *node_below)
{
    float *const *level = columns->levels + columns->tops[column];
    float *const *end = columns->levels + columns->tops[column + 1];
    size_t place = node_below(*level, value);
    while (++level < end) {
        place *= NODE;
        place += node_below(*level + place, value);
    }
    return (Py_ssize_t)place;
}

static inline unsigned node_below_plain(const float *node, float value)
{
    typedef float Four __attribute__((vector_size(16), may_alias));
    typedef int32_t Found __attribute__((vector_size(16)));
    const Four *four = (const Four *)node;
    Four all = {value, value, value, value};
    /* Each is 0 or -1. */
    Found found = (four[0] < all) + (four[1] < all) + (four[2] < all) + (four[3] < all);
    return (unsigned)-(found[0] + found[1] + found[2] + found[3]);
}

#ifdef WIDE
/* A bit for each: they are sorted, so the first that is not set says how many there are. */
WIDE static inline unsigned node_below_wide(const float *node, float value)
{
    __m256 all = _mm256_set1_ps(value);
    unsigned low = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_load_ps(node), all, _CMP_LT_OQ));
    unsigned high = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_load_ps(node + 8), all, _CMP_LT_OQ));
    return (unsigned)__builtin_ctz(~(low | high << 8));
}
#endif

/* A method that is called for some rows: its arguments are not made a tuple of. */
#define CALLED(NAME, FUNCTION, DOC) {NAME, (PyCFunction)(void (*)(void))(FUNCTION), METH_FASTCALL, DOC}

/* buffers.c: Arrays as they come from numpy. */

/* Whether there are as many arguments as a method takes; if not, there is an exception. */
bool are_given(Py_ssize_t count, Py_ssize_t wanted);

/* Takes an array of float32 (`f`) or float64 (`d`) that lies in one piece. Returns -1 with an exception if it is none. */
int vector_take(Py_buffer *view, PyObject *array, char kind, bool writable);

/* A matrix of float32, however its rows and columns lie. */
typedef struct {
    Py_buffer view;
    Py_ssize_t rows, columns;
} Matrix;

int matrix_take(Matrix *matrix, PyObject *array);

/* Returns where a row begins. */
static inline const char *matrix_row(const Matrix *matrix, Py_ssize_t row)
{
    return (const char *)matrix->view.buf + row * matrix->view.strides[0];
}

static inline float row_value(const char *row, Py_ssize_t column, Py_ssize_t stride)
{
    float value;
    memcpy(&value, row + column * stride, sizeof value);
    return value;
}

static inline float matrix_value(const Matrix *matrix, Py_ssize_t row, Py_ssize_t column)
{
    float value;
    memcpy(&value, (const char *)matrix->view.buf + row * matrix->view.strides[0] + column * matrix->view.strides[1],
           sizeof value);
    return value;
}

/* Copies a sequence of whole numbers from 0 to `most`. Returns NULL with an exception if it is none; free it. */
Py_ssize_t *places_take(PyObject *sequence, Py_ssize_t most, Py_ssize_t *count);

/* answers.c */
extern const char answers_bounds_doc[];
PyObject *answers_bounds(PyObject *module, PyObject *array);
extern const char answers_span_doc[], answers_exponents_doc[], answers_shares_doc[];
PyObject *answers_span(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *answers_exponents(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *answers_shares(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* heads.c */
extern const char heads_find_doc[];
PyObject *heads_find(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* letters.c */
extern const char letters_doc[];
PyObject *letters(PyObject *module, PyObject *args);

/* tensors.c */
extern const char tensors_lift_doc[];
PyObject *tensors_lift(PyObject *module, PyObject *text);

extern PyType_Spec reader_spec; /* reader.c */
extern PyType_Spec forest_spec; /* forest.c */
extern PyType_Spec tails_spec;  /* tails.c */

#endif
