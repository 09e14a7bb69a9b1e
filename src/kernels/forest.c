/* An ensemble of trees by bit vectors: see `modelyard.inference.trees`, which makes the table. */
#include "kernels.h"

#include <float.h>

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
    Py_ssize_t rows;   /* of the table */
    Py_ssize_t stride; /* bytes of a row: whole lines of the cache, so that none is read for two rows */
    int word;          /* bytes of a word */
    char *table;       /* rows x trees */
    void *memory;      /* that it lies in */
    float *values;     /* trees x leaves */
    int32_t *firsts;   /* the first of them, by tree */
    float *base;
} Forest;

/* What is looked up of one row. */
typedef struct {
    const char **rows; /* of the table, by column */
    char *words;       /* those of all columns joined, by tree */
    int32_t *places;   /* of the values of the leaves that it ends in, by tree */
} Scratch;

static void forest_dealloc(PyObject *object)
{
    Forest *self = (Forest *)object;
    PyTypeObject *type = Py_TYPE(object);
    columns_drop(&self->columns);
    void *made[] = {self->numbers, self->starts, self->missing, self->parts,
                    self->memory,  self->values, self->firsts,  self->base};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        PyMem_Free(made[i]);
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

/* Copies words to where their rows are whole lines. */
static bool copy_table(Forest *self, const Py_buffer *words)
{
    Py_ssize_t row = words->shape[1] * words->itemsize;
    self->rows = words->shape[0];
    self->trees = words->shape[1];
    self->stride = (row + LINE - 1) / LINE * LINE;
    Py_ssize_t size = self->rows * self->stride;
    self->memory = PyMem_Malloc((size_t)size + LINE);
    if (self->memory == NULL) {
        PyErr_NoMemory();
        return false;
    }
    self->table = aligned(self->memory);
    memset(self->table, -1, (size_t)size);
    for (Py_ssize_t i = 0; i < self->rows; i++)
        memcpy(self->table + i * self->stride, (const char *)words->buf + i * row, (size_t)row);
    return true;
}

static bool take_table(Forest *self, PyObject *object)
{
    Py_buffer words;
    if (PyObject_GetBuffer(object, &words, PyBUF_C_CONTIGUOUS) < 0)
        return false;
    self->word = (int)words.itemsize;
    bool taken;
    if (words.ndim != 2 || words.shape[1] < 1)
        taken = refuse("the table is no matrix");
    else if (self->word != 2 && self->word != 4 && self->word != 8)
        taken = refuse("its words have another size");
    else
        taken = copy_table(self, &words);
    PyBuffer_Release(&words);
    return taken;
}

/* Words of the table as they are joined, however large each of them is. */
typedef uint64_t Joined __attribute__((may_alias));
enum { JOINED = LINE / sizeof(Joined) };

/* Whether every word has the bit of the last leaf, which lies to the left of no node: so a row ends in some leaf of each
 * tree, and nobody has to ask. */
static bool has_last_leaf(const Forest *self)
{
    int bits = 8 * self->word;
    if (self->leaves >= bits)
        return false;
    uint64_t all = ~(uint64_t)0, last = (uint64_t)1 << (self->leaves - 1);
    const Joined *words = (const Joined *)self->table;
    for (Py_ssize_t i = 0; i < self->rows * self->stride / (Py_ssize_t)sizeof(Joined); i++)
        all &= words[i];
    for (int at = 0; at < 64; at += bits)
        if (!(all >> at & last))
            return false;
    return true;
}

/* Whether all that one part says of another is true: what is looked up is never outside. */
static bool fits(const Forest *self, Py_ssize_t missing, Py_ssize_t starts, Py_ssize_t numbers, Py_ssize_t values)
{
    Py_ssize_t count = self->columns.count, rows = self->rows;
    if (count < 1 || missing != count || starts != count || numbers != count)
        return refuse("there are not as many places as columns");
    for (Py_ssize_t c = 0; c < count; c++)
        if (self->starts[c] + (self->columns.starts[c + 1] - self->columns.starts[c]) >= rows ||
            self->missing[c] >= rows)
            return refuse("a column has rows that the table does not have");
    if (self->leaves < 1 || values / self->trees != self->leaves || values % self->trees)
        return refuse("there are not as many values as leaves");
    if (values > INT32_MAX)
        return refuse("there are more values than are ever written");
    if (!has_last_leaf(self))
        return refuse("a word says of a row that it ends nowhere");
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
    Py_ssize_t rows = self->rows;
    if ((self->starts = places_take(starts, rows, &begun)) == NULL ||
        (self->missing = places_take(missing, rows, &gone)) == NULL ||
        (self->numbers = places_take(numbers, PY_SSIZE_T_MAX - 1, &used)) == NULL ||
        (self->parts = places_take(parts, self->trees, &sums)) == NULL ||
        (self->values = copied(values, &many)) == NULL || (self->base = copied(base, &added)) == NULL)
        return false;
    self->outputs = sums - 1;
    if (!fits(self, gone, begun, used, many))
        return false;
    if ((self->firsts = PyMem_Calloc((size_t)(self->stride / self->word), sizeof *self->firsts)) == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t tree = 0; tree < self->trees; tree++)
        self->firsts[tree] = (int32_t)(tree * self->leaves);
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

/* The sum of some values as numpy makes that of float32, so that both have the same bits: in halves, and of those eight
 * at a time. */
static float pairwise(const float *values, const int32_t *places, Py_ssize_t n)
{
    if (n < 8) {
        float sum = 0;
        for (Py_ssize_t i = 0; i < n; i++)
            sum += values[places[i]];
        return sum;
    }
    if (n > 128) {
        Py_ssize_t half = n / 2 - n / 2 % 8;
        return pairwise(values, places, half) + pairwise(values, places + half, n - half);
    }
    float sums[8];
    for (int k = 0; k < 8; k++)
        sums[k] = values[places[k]];
    Py_ssize_t i = 8;
    for (; i < n - n % 8; i += 8)
        for (int k = 0; k < 8; k++)
            sums[k] += values[places[i + k]];
    float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; i++)
        sum += values[places[i]];
    return sum;
}

/* Joins some lines of the words of all columns, which stay in registers meanwhile. */
INLINE void join(const char *const *rows, Py_ssize_t columns, Py_ssize_t at, char *words, const int lines)
{
    Joined left[2 * JOINED];
    memcpy(left, rows[0] + at, (size_t)lines * LINE);
    for (Py_ssize_t c = 1; c < columns; c++) {
        const Joined *more = (const Joined *)(rows[c] + at);
        for (int k = 0; k < lines * JOINED; k++)
            left[k] &= more[k];
    }
    memcpy(words + at, left, (size_t)lines * LINE);
}

/* Defines what finds the value of the leaf that is left of each tree, for words of one size. */
#define LEAVES(NAME, WORD, LOWEST)                                                                                    \
    INLINE void NAME(const Forest *self, const char *words, int32_t *places)                                          \
    {                                                                                                                 \
        typedef WORD Word __attribute__((may_alias));                                                                 \
        enum { MANY = LINE / sizeof(WORD) };                                                                          \
        const Word *word = (const Word *)words;                                                                       \
        for (Py_ssize_t i = 0; i < self->stride / (Py_ssize_t)sizeof(WORD); i += MANY)                                \
            for (int k = 0; k < MANY; k++)                                                                            \
                places[i + k] = self->firsts[i + k] + LOWEST(word[i + k]);                                            \
    }

/* Returns the lowest bit that is set of those but the highest. A power of two is a float without a fraction: so it is
 * its exponent, which many are asked for at once. */
INLINE int32_t lowest_bit(uint32_t word)
{
    float power = (float)(int32_t)(word & -word);
    uint32_t bits;
    memcpy(&bits, &power, sizeof bits);
    return (int32_t)(bits >> (FLT_MANT_DIG - 1)) - (FLT_MAX_EXP - 1);
}

LEAVES(leaves_2, uint16_t, lowest_bit)
LEAVES(leaves_4, uint32_t, lowest_bit)
LEAVES(leaves_8, uint64_t, __builtin_ctzll)

/* Looks one row up. */
INLINE void look_up(const Forest *self, const char *row, Py_ssize_t stride, const Scratch *scratch,
                    NodeBelow *node_below)
{
    const Columns columns = self->columns;
    for (Py_ssize_t c = 0; c < columns.count; c++) {
        float value = row_value(row, self->numbers[c], stride);
        Py_ssize_t below = columns_below(&columns, c, value, node_below);
        Py_ssize_t place = value == value ? self->starts[c] + below : self->missing[c];
        scratch->rows[c] = self->table + place * self->stride;
    }
    Py_ssize_t at = 0;
    for (; at + LINE < self->stride; at += 2 * LINE)
        join(scratch->rows, columns.count, at, scratch->words, 2);
    if (at < self->stride)
        join(scratch->rows, columns.count, at, scratch->words, 1);
    if (self->word == 2)
        leaves_2(self, scratch->words, scratch->places);
    else if (self->word == 4)
        leaves_4(self, scratch->words, scratch->places);
    else
        leaves_8(self, scratch->words, scratch->places);
}

static void look_up_plain(const Forest *self, const char *row, Py_ssize_t stride, const Scratch *scratch)
{
    look_up(self, row, stride, scratch, node_below_plain);
}

#ifdef WIDE
WIDE static void look_up_wide(const Forest *self, const char *row, Py_ssize_t stride, const Scratch *scratch)
{
    look_up(self, row, stride, scratch, node_below_wide);
}
#endif

static void run(const Forest *self, const Matrix *matrix, const Scratch *scratch, float *out)
{
    for (Py_ssize_t row = 0; row < matrix->rows; row++) {
        const char *values = matrix_row(matrix, row);
#ifdef WIDE
        if (wide)
            look_up_wide(self, values, matrix->view.strides[1], scratch);
        else
#endif
            look_up_plain(self, values, matrix->view.strides[1], scratch);
        for (Py_ssize_t o = 0; o < self->outputs; o++) {
            Py_ssize_t first = self->parts[o];
            /* numpy begins with 0, which makes 0 of -0. */
            float sum = 0 + pairwise(self->values, scratch->places + first, self->parts[o + 1] - first);
            *out++ = sum + self->base[o];
        }
    }
}

PyDoc_STRVAR(sums_doc, "sums(matrix, out, /)\n--\n\n"
                       "Write the sums of the leaves that rows end in.\n\n"
                       "Args:\n"
                       "    matrix: float32, rows x columns.\n"
                       "    out: float32, rows x sums.\n");

static PyObject *forest_sums(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Forest *self = (const Forest *)object;
    Matrix matrix;
    Py_buffer out;
    if (!are_given(count, 2) || matrix_take(&matrix, args[0]) < 0)
        return NULL;
    if (vector_take(&out, args[1], 'f', true) < 0) {
        PyBuffer_Release(&matrix.view);
        return NULL;
    }
    Py_ssize_t row = self->outputs * (Py_ssize_t)sizeof(float);
    Py_ssize_t words = self->stride, places = words / self->word * (Py_ssize_t)sizeof(int32_t);
    char *memory = PyMem_Malloc((size_t)(LINE + words + places + self->columns.count * (Py_ssize_t)sizeof(char *)));
    char *first = aligned(memory);
    Scratch scratch = {.words = first, .places = (void *)(first + words), .rows = (void *)(first + words + places)};
    if (memory == NULL)
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
    PyMem_Free(memory);
    PyBuffer_Release(&matrix.view);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef forest_methods[] = {
    CALLED("sums", forest_sums, sums_doc),
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
