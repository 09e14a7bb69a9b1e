/* An ensemble of trees by bit vectors: see `modelyard.inference.trees`, which makes the table. */
#include "kernels.h"

/* From so many rows on other threads may run meanwhile: fewer are run by an event loop that nobody should interrupt. */
enum { MANY_ROWS = 256 };

typedef struct {
    PyObject_HEAD
    Columns columns;
    Py_ssize_t *numbers; /* where each column lies in a matrix */
    Py_ssize_t *starts;  /* the first row of the table for each column */
    Py_ssize_t *missing; /* its row for a value that is missing */
    Py_ssize_t *parts;   /* where the trees of each sum begin, and where the last end */
    Py_ssize_t trees, leaves, outputs, width;
    int word;        /* bytes */
    Py_buffer table; /* rows x trees */
    float *values;   /* trees x leaves */
    float *base;
} Forest;

/* What one call needs. */
typedef struct {
    Py_ssize_t *rows; /* of the table, by row and column */
    float *values;    /* of the leaves that one row ends in, by tree */
} Scratch;

static void forest_dealloc(PyObject *object)
{
    Forest *self = (Forest *)object;
    PyTypeObject *type = Py_TYPE(object);
    columns_drop(&self->columns);
    void *made[] = {self->numbers, self->starts, self->missing, self->parts, self->values, self->base};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        PyMem_Free(made[i]);
    if (self->table.obj != NULL)
        PyBuffer_Release(&self->table);
    PyObject_Free(object);
    Py_DECREF(type);
}

static bool refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return false;
}

/* Copies float32. */
static float *copied(PyObject *array, Py_ssize_t *count)
{
    Py_buffer view;
    if (vector_take(&view, array, 'f', false) < 0)
        return NULL;
    float *made = PyMem_Malloc((size_t)view.len + sizeof *made);
    if (made == NULL)
        PyErr_NoMemory();
    else
        memcpy(made, view.buf, (size_t)view.len);
    *count = view.len / (Py_ssize_t)sizeof *made;
    PyBuffer_Release(&view);
    return made;
}

static bool take_table(Forest *self, PyObject *table)
{
    if (PyObject_GetBuffer(table, &self->table, PyBUF_C_CONTIGUOUS) < 0)
        return false;
    if (self->table.ndim != 2 || self->table.shape[1] < 1)
        return refuse("the table is no matrix");
    self->word = (int)self->table.itemsize;
    self->trees = self->table.shape[1];
    return self->word == 2 || self->word == 4 || self->word == 8 || refuse("its words have another size");
}

/* Whether all that one part says of another is true: what is looked up is never outside. */
static bool fits(const Forest *self, Py_ssize_t missing, Py_ssize_t starts, Py_ssize_t numbers, Py_ssize_t values)
{
    Py_ssize_t count = self->columns.count, rows = self->table.shape[0];
    if (count < 1 || missing != count || starts != count || numbers != count)
        return refuse("there are not as many places as columns");
    for (Py_ssize_t c = 0; c < count; c++)
        if (self->starts[c] + (self->columns.starts[c + 1] - self->columns.starts[c]) >= rows ||
            self->missing[c] >= rows)
            return refuse("a column has rows that the table does not have");
    if (self->leaves < 1 || values / self->trees != self->leaves || values % self->trees)
        return refuse("there are not as many values as leaves");
    if (self->outputs < 1 || self->parts[0] != 0 || self->parts[self->outputs] != self->trees)
        return refuse("the sums do not have all trees");
    for (Py_ssize_t i = 0; i < self->outputs; i++)
        if (self->parts[i] > self->parts[i + 1])
            return refuse("the trees of a sum end before they begin");
    return true;
}

static bool fill(Forest *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"table", "knots",  "sizes", "starts", "missing", "numbers",
                            "values", "leaves", "parts", "base",   NULL};
    PyObject *table, *knots, *sizes, *starts, *missing, *numbers, *values, *parts, *base;
    Py_ssize_t many, begun, gone, used, sums, added;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOnOO", names, &table, &knots, &sizes, &starts, &missing,
                                     &numbers, &values, &self->leaves, &parts, &base) ||
        !take_table(self, table) || columns_take(&self->columns, knots, sizes) < 0)
        return false;
    Py_ssize_t rows = self->table.shape[0];
    if ((self->starts = places_take(starts, rows, &begun)) == NULL ||
        (self->missing = places_take(missing, rows, &gone)) == NULL ||
        (self->numbers = places_take(numbers, PY_SSIZE_T_MAX - 1, &used)) == NULL ||
        (self->parts = places_take(parts, self->trees, &sums)) == NULL ||
        (self->values = copied(values, &many)) == NULL || (self->base = copied(base, &added)) == NULL)
        return false;
    self->outputs = sums - 1;
    if (!fits(self, gone, begun, used, many))
        return false;
    for (Py_ssize_t c = 0; c < used; c++)
        if (self->numbers[c] >= self->width)
            self->width = self->numbers[c] + 1;
    return added == self->outputs || refuse("there is not a base for each sum");
}

static PyObject *forest_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Forest *self = (Forest *)PyType_GenericAlloc(type, 0);
    if (self != NULL && !fill(self, args, kwargs)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* The sum of float32 as numpy makes it, so that both have the same bits: in halves, and of those eight at a time. */
static float pairwise(const float *a, Py_ssize_t n)
{
    if (n < 8) {
        float sum = 0;
        for (Py_ssize_t i = 0; i < n; i++)
            sum += a[i];
        return sum;
    }
    if (n > 128) {
        Py_ssize_t half = n / 2 - n / 2 % 8;
        return pairwise(a, half) + pairwise(a + half, n - half);
    }
    float sums[8];
    memcpy(sums, a, sizeof sums);
    Py_ssize_t i = 8;
    for (; i < n - n % 8; i += 8)
        for (int k = 0; k < 8; k++)
            sums[k] += a[i + k];
    float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; i++)
        sum += a[i];
    return sum;
}

/* Bytes of words that are joined together: a line of the cache, in what every processor has registers for. */
enum { LINE = 64, REGISTER = 16 };

/* Joins the words of all columns, and looks up the value of the leaf that is left in each tree; for words of one size. */
#define LOOK_UP(NAME, WORD, LOWEST)                                                                                   \
    typedef WORD NAME##_words __attribute__((vector_size(REGISTER), aligned(sizeof(WORD)), may_alias));               \
                                                                                                                      \
    /* The value of the leaf that is left; of a row without one, as only a damaged table has it, that of the last. */ \
    static inline float NAME##_value(const Forest *self, Py_ssize_t tree, WORD word)                                  \
    {                                                                                                                 \
        Py_ssize_t last = self->leaves - 1, leaf = word ? LOWEST(word) : last;                                        \
        return self->values[tree * self->leaves + (leaf < last ? leaf : last)];                                       \
    }                                                                                                                 \
                                                                                                                      \
    static void NAME(const Forest *self, const Py_ssize_t *rows, float *values)                                       \
    {                                                                                                                 \
        enum { MANY = LINE / sizeof(WORD) };                                                                          \
        const WORD *table = self->table.buf;                                                                          \
        Py_ssize_t trees = self->trees, columns = self->columns.count;                                                \
        for (Py_ssize_t first = 0; first < trees && trees >= MANY; first += MANY) {                                   \
            /* The last ones are looked up with some before them once more: so many are faster than fewer. */         \
            Py_ssize_t at = first + MANY <= trees ? first : trees - MANY;                                             \
            const NAME##_words *line = (const NAME##_words *)(table + rows[0] * trees + at);                          \
            NAME##_words a = line[0], b = line[1], c = line[2], d = line[3];                                          \
            for (Py_ssize_t i = 1; i < columns; i++) {                                                                \
                line = (const NAME##_words *)(table + rows[i] * trees + at);                                          \
                a &= line[0], b &= line[1], c &= line[2], d &= line[3];                                               \
            }                                                                                                         \
            NAME##_words all[] = {a, b, c, d};                                                                        \
            for (int k = 0; k < MANY; k++)                                                                            \
                values[at + k] = NAME##_value(self, at + k, ((const WORD *)all)[k]);                                  \
        }                                                                                                             \
        for (Py_ssize_t tree = 0; tree < trees && trees < MANY; tree++) {                                             \
            WORD word = table[rows[0] * trees + tree];                                                                \
            for (Py_ssize_t c = 1; c < columns; c++)                                                                  \
                word &= table[rows[c] * trees + tree];                                                                \
            values[tree] = NAME##_value(self, tree, word);                                                            \
        }                                                                                                             \
    }

LOOK_UP(look_up_2, uint16_t, __builtin_ctz)
LOOK_UP(look_up_4, uint32_t, __builtin_ctz)
LOOK_UP(look_up_8, uint64_t, __builtin_ctzll)

static void run(const Forest *self, const Matrix *matrix, const Scratch *scratch, float *out)
{
    Py_ssize_t columns = self->columns.count;
    for (Py_ssize_t row = 0; row < matrix->rows; row += TOGETHER) {
        int many = matrix->rows - row < TOGETHER ? (int)(matrix->rows - row) : TOGETHER;
        for (Py_ssize_t c = 0; c < columns; c++) {
            float values[TOGETHER];
            Py_ssize_t below[TOGETHER];
            matrix_values(matrix, row, self->numbers[c], many, values);
            columns_below(&self->columns, c, values, many, below);
            for (int i = 0; i < many; i++)
                scratch->rows[i * columns + c] =
                    values[i] == values[i] ? self->starts[c] + below[i] : self->missing[c];
        }
        for (int i = 0; i < many; i++) {
            const Py_ssize_t *rows = scratch->rows + i * columns;
            if (self->word == 2)
                look_up_2(self, rows, scratch->values);
            else if (self->word == 4)
                look_up_4(self, rows, scratch->values);
            else
                look_up_8(self, rows, scratch->values);
            for (Py_ssize_t o = 0; o < self->outputs; o++) {
                Py_ssize_t first = self->parts[o];
                /* numpy begins with 0, which makes 0 of -0. */
                float sum = 0 + pairwise(scratch->values + first, self->parts[o + 1] - first);
                *out++ = sum + self->base[o];
            }
        }
    }
}

PyDoc_STRVAR(sums_doc, "sums(matrix, out, /)\n--\n\n"
                       "Write the sums of the leaves that rows end in.\n\n"
                       "Args:\n"
                       "    matrix: float32, rows x columns.\n"
                       "    out: float32, rows x sums.\n");

static PyObject *forest_sums(PyObject *object, PyObject *args)
{
    const Forest *self = (const Forest *)object;
    PyObject *given, *found;
    Matrix matrix;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "OO", &given, &found) || matrix_take(&matrix, given) < 0)
        return NULL;
    if (vector_take(&out, found, 'f', true) < 0) {
        PyBuffer_Release(&matrix.view);
        return NULL;
    }
    Py_ssize_t row = self->outputs * (Py_ssize_t)sizeof(float);
    Scratch scratch = {
        .rows = PyMem_Malloc((size_t)(TOGETHER * self->columns.count) * sizeof *scratch.rows),
        .values = PyMem_Malloc((size_t)self->trees * sizeof *scratch.values),
    };
    if (scratch.rows == NULL || scratch.values == NULL)
        PyErr_NoMemory();
    else if (matrix.columns < self->width || out.len % row || out.len / row != matrix.rows)
        refuse("the matrices do not have the shapes of this forest");
    else if (matrix.rows < MANY_ROWS)
        run(self, &matrix, &scratch, out.buf);
    else {
        Py_BEGIN_ALLOW_THREADS
        run(self, &matrix, &scratch, out.buf);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(scratch.rows);
    PyMem_Free(scratch.values);
    PyBuffer_Release(&matrix.view);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef forest_methods[] = {
    {"sums", forest_sums, METH_VARARGS, sums_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(forest_doc, "Forest(table, knots, sizes, starts, missing, numbers, values, leaves, parts, base)\n--\n\n"
                         "Runs an ensemble of trees.\n\n"
                         "Args:\n"
                         "    table: int16, int32 or int64, rows x trees: which leaves a value leaves open.\n"
                         "    knots: float32, the thresholds of all columns, sorted within each.\n"
                         "    sizes: How many each column has.\n"
                         "    starts: The row of the table for what is up to the first of them, by column.\n"
                         "    missing: The row for what is missing, by column.\n"
                         "    numbers: Where the columns lie in a matrix.\n"
                         "    values: float32, trees x leaves.\n"
                         "    leaves: Leaves of a tree.\n"
                         "    parts: The first tree of each sum, and how many trees there are.\n"
                         "    base: float32, is added to each sum.\n");

static PyType_Slot forest_slots[] = {
    {Py_tp_doc, (void *)forest_doc},       {Py_tp_new, forest_new}, {Py_tp_dealloc, forest_dealloc},
    {Py_tp_methods, forest_methods}, {0, NULL},
};

PyType_Spec forest_spec = {
    .name = "modelyard.inference._kernels.Forest",
    .basicsize = sizeof(Forest),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = forest_slots,
};
