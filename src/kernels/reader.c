/* Rows of JSON objects, held against the fields of a signature while they are read. */
#include "kernels.h"

#include <math.h>

typedef struct {
    PyObject *kept;  /* the bytes that hold the name */
    const char *key; /* the name as it stands in a body, in quotes and with its colon */
    Py_ssize_t size;
    uint64_t words[2], masks[2]; /* how it begins, and which of these bits are part of it */
    bool text, nullable;
    Py_ssize_t place; /* among the numbers, or among the texts */
} Field;

typedef struct {
    PyObject_HEAD
    Field *fields;
    Py_ssize_t count, numbers, texts;
} Reader;

/* What was read of one body. */
typedef struct {
    const char *end;
    double *numbers;
    PyObject *texts;
    Py_ssize_t rows, room;
    /* The numbers of the row that is being read. */
    double *row;
    /* The row in which each field was read last, counted from 1; none while they come in order. */
    Py_ssize_t *last;
} Reading;

static void reader_dealloc(PyObject *object)
{
    Reader *self = (Reader *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (Py_ssize_t i = 0; i < self->count; i++)
        Py_XDECREF(self->fields[i].kept);
    PyMem_Free(self->fields);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* Whether a name stands in JSON as it is, and so is known by its bytes. */
static bool is_plain(const char *name, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == '"' || name[i] == '\\')
            return false;
    return true;
}

static int take_field(Reader *self, PyObject *item)
{
    const char *name;
    char *kept;
    Py_ssize_t size;
    int text, nullable;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a field is no tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "s#pp", &name, &size, &text, &nullable))
        return -1;
    Field *field = &self->fields[self->count++];
    if (!is_plain(name, size)) {
        PyErr_SetString(PyExc_ValueError, "a name does not stand in JSON as it is");
        return -1;
    }
    field->kept = PyBytes_FromFormat("\"%s\":", name);
    if (field->kept == NULL || PyBytes_AsStringAndSize(field->kept, &kept, &field->size) < 0)
        return -1;
    field->key = kept;
    size_t begins = (size_t)field->size < sizeof field->words ? (size_t)field->size : sizeof field->words;
    memcpy(field->words, kept, begins);
    memset(field->masks, -1, begins);
    field->text = text;
    field->nullable = nullable;
    field->place = text ? self->texts++ : self->numbers++;
    return 0;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fields", NULL};
    PyObject *fields;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, &PyTuple_Type, &fields))
        return NULL;
    Reader *self = (Reader *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(fields);
    self->fields = PyMem_Calloc((size_t)count + 1, sizeof *self->fields);
    if (self->fields == NULL)
        PyErr_NoMemory();
    else if (count == 0)
        PyErr_SetString(PyExc_ValueError, "there is no field");
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        take_field(self, PyTuple_GetItem(fields, i));
    if (PyErr_Occurred()) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* As in the header: takes something at `p`, and returns where it ends; NULL if it is not there or not read here. */

/* Takes the name of a field and its colon, where they stand as a program writes them. */
static inline const char *take_key(const char *p, const char *end, const Field *field)
{
    uint64_t words[2];
    if (end - p < (Py_ssize_t)sizeof words || end - p < field->size)
        return NULL;
    memcpy(words, p, sizeof words);
    if (((words[0] ^ field->words[0]) & field->masks[0]) | ((words[1] ^ field->words[1]) & field->masks[1]))
        return NULL;
    size_t known = sizeof words;
    if ((size_t)field->size > known && memcmp(p + known, field->key + known, (size_t)field->size - known))
        return NULL;
    return skip_space(p + field->size);
}

/* Takes the name of any field, of those from `at` on first. */
static const char *take_name(const Reader *self, const char *p, const char *end, Py_ssize_t *at)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const Field *field = &self->fields[*at];
        const char *after = take_bytes(p, end, field->key, field->size - 1);
        if (after != NULL)
            return after;
        *at = *at + 1 < self->count ? *at + 1 : 0;
    }
    return NULL;
}

/* Takes a text without an escape. */
static const char *take_text(const char *p, PyObject *texts, Py_ssize_t place)
{
    if (*p != '"')
        return NULL;
    const char *first = ++p;
    for (; *p != '"'; p++)
        if ((unsigned char)*p < 0x20 || *p == '\\')
            return NULL;
    PyObject *text = PyUnicode_DecodeUTF8(first, p - first, "strict");
    if (text == NULL) {
        PyErr_Clear();
        return NULL;
    }
    return PyList_SetItem(texts, place, text) == 0 ? p + 1 : NULL;
}

static inline const char *take_value(const Reader *self, const char *p, const Reading *r, const Field *field)
{
    const char *after = field->nullable ? take_bytes(p, r->end, "null", 4) : NULL;
    if (field->text) {
        Py_ssize_t place = r->rows * self->texts + field->place;
        if (after == NULL)
            return take_text(p, r->texts, place);
        PyObject *empty = PyUnicode_FromStringAndSize("", 0);
        return empty != NULL && PyList_SetItem(r->texts, place, empty) == 0 ? after : NULL;
    }
    double *number = &r->row[field->place];
    if (after == NULL)
        return read_number(p, r->end, number);
    *number = NAN;
    return after;
}

/* Makes room for one more row. */
static bool make_room(const Reader *self, Reading *r)
{
    for (Py_ssize_t i = 0; i < self->texts; i++)
        if (PyList_Append(r->texts, Py_None) < 0)
            return false;
    if (r->rows == r->room) {
        Py_ssize_t room = r->room ? 2 * r->room : 1;
        double *numbers = PyMem_Realloc(r->numbers, (size_t)(room * self->numbers + 1) * sizeof *numbers);
        if (numbers == NULL)
            return false;
        r->numbers = numbers;
        r->room = room;
    }
    r->row = r->numbers + r->rows * self->numbers;
    return true;
}

/* Takes the fields from the n-th on, in any order. */
static const char *take_fields(const Reader *self, const char *p, Reading *r, Py_ssize_t n)
{
    if (r->last == NULL && (r->last = PyMem_Calloc((size_t)self->count, sizeof *r->last)) == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < n; i++)
        r->last[i] = r->rows + 1;
    for (Py_ssize_t at = n; n < self->count; n++) {
        if ((n && (p = take(p, ',')) == NULL) || (p = take_name(self, p, r->end, &at)) == NULL)
            return NULL;
        /* A name that comes twice: which value counts is a question for others. */
        if (r->last[at] == r->rows + 1)
            return NULL;
        r->last[at] = r->rows + 1;
        if ((p = take(p, ':')) == NULL || (p = take_value(self, p, r, &self->fields[at])) == NULL)
            return NULL;
        at = at + 1 < self->count ? at + 1 : 0;
    }
    return p;
}

static const char *take_row(const Reader *self, const char *p, Reading *r)
{
    if ((p = take(p, '{')) == NULL || !make_room(self, r))
        return NULL;
    /* Mostly they come in order: then nobody has to remember which there were. */
    const char *after = p;
    Py_ssize_t n = 0;
    for (; n < self->count; n++) {
        const Field *field = &self->fields[n];
        if ((n && (after = take(p, ',')) == NULL) || (after = take_key(after, r->end, field)) == NULL ||
            (after = take_value(self, after, r, field)) == NULL)
            break;
        p = after;
    }
    if (n < self->count && (p = take_fields(self, p, r, n)) == NULL)
        return NULL;
    r->rows++;
    return take(p, '}');
}

/* Takes `{"rows": [...]}`, or one row. */
static const char *take_body(const Reader *self, const char *p, Reading *r)
{
    const char *inside = take(p, '{');
    const char *after = inside == NULL ? NULL : take_bytes(inside, r->end, "\"rows\"", 6);
    if (after == NULL)
        return take_row(self, p, r);
    if ((p = take(after, ':')) == NULL || (p = take(p, '[')) == NULL)
        return NULL;
    for (;;) {
        if ((p = take_row(self, p, r)) == NULL)
            return NULL;
        if ((after = take(p, ',')) == NULL)
            break;
        p = after;
    }
    return (p = take(p, ']')) == NULL ? NULL : take(p, '}');
}

PyDoc_STRVAR(read_doc, "read(body, /)\n--\n\n"
                       "Read the body of `POST /predict`: `{\"rows\": [{...}]}`, or one row.\n\n"
                       "Returns:\n"
                       "    How many rows there are, the bytes of their numbers (float64, rows x numbers; a missing one\n"
                       "    is NaN), and their texts in the same order (a missing one is empty); None for anything that\n"
                       "    is unusual or wrong.\n");

/* Returns what was read, or None where it does not fit, and lets go of what was needed for it. */
static PyObject *read_of(const Reader *self, Reading *r, bool fits)
{
    PyObject *found = NULL;
    if (fits && !PyErr_Occurred()) {
        PyObject *count = PyLong_FromSsize_t(r->rows);
        PyObject *numbers = PyBytes_FromStringAndSize((const char *)r->numbers,
                                                      r->rows * self->numbers * (Py_ssize_t)sizeof *r->numbers);
        if (count != NULL && numbers != NULL)
            found = PyTuple_Pack(3, count, numbers, r->texts);
        Py_XDECREF(count);
        Py_XDECREF(numbers);
    }
    Py_XDECREF(r->texts);
    PyMem_Free(r->last);
    PyMem_Free(r->numbers);
    return found == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : found;
}

static PyObject *reader_read(PyObject *object, PyObject *body)
{
    const Reader *self = (const Reader *)object;
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(body, &data, &size) < 0)
        return NULL;
    Reading r = {.end = data + size, .texts = PyList_New(0)};
    bool fits = r.texts != NULL && take_body(self, data, &r) == r.end;
    return read_of(self, &r, fits);
}

PyDoc_STRVAR(alone_doc, "read_alone(bodies, /)\n--\n\n"
                        "Read bodies of `POST /predict` that hold one row each.\n\n"
                        "Args:\n"
                        "    bodies: A list of them.\n\n"
                        "Returns:\n"
                        "    What `read` gives of all of them together; None where one of them holds another number of\n"
                        "    rows, or anything that is unusual or wrong.\n");

static PyObject *reader_read_alone(PyObject *object, PyObject *bodies)
{
    const Reader *self = (const Reader *)object;
    if (!PyList_Check(bodies)) {
        PyErr_SetString(PyExc_TypeError, "the bodies are no list");
        return NULL;
    }
    Py_ssize_t count = PyList_Size(bodies);
    Reading r = {.room = count, .texts = PyList_New(0)};
    r.numbers = PyMem_Malloc((size_t)(count * self->numbers + 1) * sizeof *r.numbers);
    if (r.numbers == NULL)
        PyErr_NoMemory();
    bool fits = !PyErr_Occurred();
    for (Py_ssize_t i = 0; fits && i < count; i++) {
        char *data;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyList_GetItem(bodies, i), &data, &size) < 0)
            break;
        r.end = data + size;
        fits = take_body(self, data, &r) == r.end && r.rows == i + 1;
    }
    return read_of(self, &r, fits);
}

static PyMethodDef reader_methods[] = {
    {"read", reader_read, METH_O, read_doc},
    {"read_alone", reader_read_alone, METH_O, alone_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(reader_doc, "Reader(fields)\n--\n\n"
                         "Reads rows that have certain fields, each of them once, in any order.\n\n"
                         "Args:\n"
                         "    fields: Of each its name, whether it is a text, and whether null may stand for it.\n\n"
                         "Raises:\n"
                         "    ValueError: A name does not stand in JSON as it is (quotes, control characters).\n");

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)reader_doc},       {Py_tp_new, reader_new}, {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods}, {0, NULL},
};

PyType_Spec reader_spec = {
    .name = "modelyard.inference._kernels.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = reader_slots,
};
