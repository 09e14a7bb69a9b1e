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
