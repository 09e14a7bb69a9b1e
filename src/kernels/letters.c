/* Whole answers to requests of one row each: see `modelyard.serving.protocols.writing`. */
#include "kernels.h"

typedef struct {
    const char *bytes;
    Py_ssize_t size;
} Piece;

/* What answers are made of. The numbers of a row stand behind each of `names`; the body begins with `begins`. */
typedef struct {
    Piece top, named, gap, begins, model, ends;
    PyObject *names; /* a tuple of bytes */
} Form;

static bool piece_of(PyObject *object, Piece *piece)
{
    char *bytes;
    if (object == NULL || PyBytes_AsStringAndSize(object, &bytes, &piece->size) < 0)
        return false;
    piece->bytes = bytes;
    return true;
}

/* The pieces of one answer, in their order; room for those of `Form`, the id twice, the label and the length. */
enum { BESIDE = 10 };

typedef struct {
    Piece *pieces;
    Py_ssize_t count, size;
} Letter;

static inline void put(Letter *letter, Piece piece)
{
    letter->pieces[letter->count++] = piece;
    letter->size += piece.size;
}

/* Takes the next number of a list in JSON, with what ends it. */
static bool next_number(const char **at, const char *end, Piece *number)
{
    const char *p = number->bytes = *at;
    while (p < end && *p != ',' && *p != ']')
        p++;
    number->size = p - number->bytes;
    *at = p + 1;
    return p < end;
}

/* Writes a number that is not below 0 up to the end of some room, and returns it. */
static Piece decimal(Py_ssize_t number, char *end)
{
    char *p = end;
    do
        *--p = (char)('0' + number % 10);
    while (number /= 10);
    return (Piece){p, end - p};
}

static PyObject *joined(const Letter *letter)
{
    PyObject *whole = PyBytes_FromStringAndSize(NULL, letter->size);
    char *to = whole == NULL ? NULL : PyBytes_AsString(whole);
    for (Py_ssize_t i = 0; to != NULL && i < letter->count; i++) {
        memcpy(to, letter->pieces[i].bytes, (size_t)letter->pieces[i].size);
        to += letter->pieces[i].size;
    }
    return whole;
}

static PyObject *answer(const Form *form, Letter *letter, Piece id, Piece label, const char **at, const char *end)
{
    char digits[24];
    *letter = (Letter){.pieces = letter->pieces};
    put(letter, form->top);
    /* The length, once it is known. */
    Piece *length = &letter->pieces[letter->count++];
    put(letter, form->named);
    put(letter, id);
    put(letter, form->gap);
    Py_ssize_t above = letter->size;
    put(letter, form->begins);
    put(letter, id);
    put(letter, form->model);
    put(letter, label);
    for (Py_ssize_t i = 0; i < PyTuple_Size(form->names); i++) {
        Piece name, number;
        if (!piece_of(PyTuple_GetItem(form->names, i), &name))
            return NULL;
        if (!next_number(at, end, &number)) {
            PyErr_SetString(PyExc_ValueError, "there are fewer numbers than answers take");
            return NULL;
        }
        put(letter, name);
        put(letter, number);
    }
    put(letter, form->ends);
    *length = decimal(letter->size - above, digits + sizeof digits);
    letter->size += length->size;
    return joined(letter);
}

const char letters_doc[] =
    "letters(form, ids, labels, numbers, /)\n--\n\n"
    "Write whole answers to requests of one row each.\n\n"
    "Args:\n"
    "    form: The bytes that all have in common: what stands before the length of a body, before the id above it,\n"
    "        between that and the body, before the id in it, between that and the label, a tuple of what stands before\n"
    "        each number, and behind the last.\n"
    "    ids: Of each request its id.\n"
    "    labels: Of each the bytes of its label; nothing, where there are none.\n"
    "    numbers: Those of all, as one list in JSON without spaces.\n\n"
    "Returns:\n"
    "    The bytes of each answer.\n";

PyObject *letters(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *top, *named, *gap, *begins, *model, *ends, *ids, *labels, *numbers;
    Form form;
    Piece text;
    if (!PyArg_ParseTuple(args, "(OOOOOO!O)O!O!O", &top, &named, &gap, &begins, &model, &PyTuple_Type, &form.names,
                          &ends, &PyList_Type, &ids, &PyList_Type, &labels, &numbers) ||
        !piece_of(top, &form.top) || !piece_of(named, &form.named) || !piece_of(gap, &form.gap) ||
        !piece_of(begins, &form.begins) || !piece_of(model, &form.model) || !piece_of(ends, &form.ends) ||
        !piece_of(numbers, &text))
        return NULL;
    Py_ssize_t count = PyList_Size(ids);
    if (PyList_Size(labels) != count || text.size < 2) {
        PyErr_SetString(PyExc_ValueError, "there are not as many labels as ids, or no numbers");
        return NULL;
    }
    Letter letter = {.pieces = PyMem_Malloc((size_t)(BESIDE + 2 * PyTuple_Size(form.names)) * sizeof(Piece))};
    if (letter.pieces == NULL)
        return PyErr_NoMemory();
    PyObject *found = PyList_New(count);
    const char *at = text.bytes + 1, *end = text.bytes + text.size;
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        Piece id, label;
        id.bytes = PyUnicode_AsUTF8AndSize(PyList_GetItem(ids, i), &id.size);
        PyObject *one = NULL;
        if (id.bytes != NULL && piece_of(PyList_GetItem(labels, i), &label))
            one = answer(&form, &letter, id, label, &at, end);
        if (one == NULL || PyList_SetItem(found, i, one) < 0)
            Py_CLEAR(found);
    }
    PyMem_Free(letter.pieces);
    return found;
}
