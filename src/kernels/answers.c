/* What a model answered: see `modelyard.serving.outputs`. */
#include "kernels.h"

#include <math.h>

/* Like numpy's: one value that is no number makes the whole none. */
static float lesser(float a, float b) { return a < b || isnan(a) ? a : b; }
static float greater(float a, float b) { return a > b || isnan(a) ? a : b; }

const char answers_bounds_doc[] =
    "bounds(output, /)\n--\n\n"
    "Return the least value, the least of what is the largest of a row, and the least and the largest sum of a row.\n\n"
    "Args:\n"
    "    output: float32, rows x columns.\n";

PyObject *answers_bounds(PyObject *Py_UNUSED(module), PyObject *array)
{
    Matrix matrix;
    if (matrix_take(&matrix, array) < 0)
        return NULL;
    float least = INFINITY, largest = INFINITY, low = INFINITY, high = -INFINITY;
    for (Py_ssize_t row = 0; row < matrix.rows; row++) {
        float top = -INFINITY, sum = 0;
        for (Py_ssize_t c = 0; c < matrix.columns; c++) {
            float value = matrix_value(&matrix, row, c);
            least = lesser(least, value);
            top = greater(top, value);
            sum = c ? sum + value : value;
        }
        largest = lesser(largest, top);
        low = lesser(low, sum);
        high = greater(high, sum);
    }
    PyBuffer_Release(&matrix.view);
    return Py_BuildValue("ffff", least, largest, low, high);
}

const char answers_span_doc[] =
    "span(output, column, /)\n--\n\n"
    "Return the least and the largest value of a column; both are no number where one of its values is none.\n\n"
    "Args:\n"
    "    output: float32, rows x columns.\n"
    "    column: Which, from 0.\n";

PyObject *answers_span(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Matrix matrix;
    if (!are_given(count, 2))
        return NULL;
    Py_ssize_t column = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred() || matrix_take(&matrix, args[0]) < 0)
        return NULL;
    float least = INFINITY, most = -INFINITY;
    bool inside = column >= 0 && column < matrix.columns;
    for (Py_ssize_t row = 0; inside && row < matrix.rows; row++) {
        float value = matrix_value(&matrix, row, column);
        least = lesser(least, value);
        most = greater(most, value);
    }
    PyBuffer_Release(&matrix.view);
    if (!inside) {
        PyErr_SetString(PyExc_IndexError, "there is no such column");
        return NULL;
    }
    return Py_BuildValue("ff", least, most);
}

const char answers_exponents_doc[] =
    "exponents(sums, far, /)\n--\n\n"
    "Put in the place of each sum its negative, no further from 0 than so far: the exponent of its odds.\n\n"
    "Args:\n"
    "    sums: float32, in one piece.\n"
    "    far: As far.\n";

PyObject *answers_exponents(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer sums;
    if (!are_given(count, 2))
        return NULL;
    float far = (float)PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred() || vector_take(&sums, args[0], 'f', true) < 0)
        return NULL;
    float *values = sums.buf;
    for (Py_ssize_t i = 0; i < sums.len / (Py_ssize_t)sizeof *values; i++) {
        float value = values[i] < -far ? -far : values[i];
        values[i] = -(value > far ? far : value);
    }
    PyBuffer_Release(&sums);
    return Py_NewRef(Py_None);
}

const char answers_shares_doc[] =
    "shares(odds, output, /)\n--\n\n"
    "Write the probabilities of both classes, by the odds of the first.\n\n"
    "Args:\n"
    "    odds: float32, one a row.\n"
    "    output: Where they go: float32, rows x 2, both in one piece.\n";

PyObject *answers_shares(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer odds, output;
    if (!are_given(count, 2) || vector_take(&odds, args[0], 'f', false) < 0)
        return NULL;
    if (vector_take(&output, args[1], 'f', true) < 0) {
        PyBuffer_Release(&odds);
        return NULL;
    }
    bool fits = output.len == 2 * odds.len;
    const float *from = odds.buf;
    float *to = output.buf;
    for (Py_ssize_t i = 0; fits && i < odds.len / (Py_ssize_t)sizeof *from; i++) {
        float yes = 1.0f / (from[i] + 1.0f);
        to[2 * i] = 1.0f - yes;
        to[2 * i + 1] = yes;
    }
    PyBuffer_Release(&odds);
    PyBuffer_Release(&output);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "there are not two answers to each row");
        return NULL;
    }
    return Py_NewRef(Py_None);
}
