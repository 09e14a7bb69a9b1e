/* Numbers of tensors, taken out of the JSON of a request; see `modelyard.serving.protocols.lifting`. */
#include "kernels.h"

#include <math.h>

/* Lists that are taken out of one request: where one stood there is room for its number. */
enum { MOST_LISTS = 1000 };

/* The numbers of one list. */
typedef struct {
    double *values;
    Py_ssize_t count, room;
} Numbers;

static bool add(Numbers *numbers, double value)
{
    if (numbers->count == numbers->room) {
        Py_ssize_t room = numbers->room ? 2 * numbers->room : 64;
        double *values = PyMem_Realloc(numbers->values, (size_t)room * sizeof *values);
        if (values == NULL)
            return false;
        numbers->values = values;
        numbers->room = room;
    }
    numbers->values[numbers->count++] = value;
    return true;
}

/* Takes what ends a list, and nothing behind it. */
static inline const char *take_last(const char *p, char c)
{
    p = skip_space(p);
    return *p == c ? p + 1 : NULL;
}

/* Takes a list of numbers, and null for one that is missing; one at least. */
static const char *take_flat(const char *p, const char *end, Numbers *numbers)
{
    const char *after = take(p, '[');
    while ((p = after) != NULL) {
        double value = NAN;
        if (*p == 'n')
            p = take_bytes(p, end, "null", 4);
        else
            p = read_number(p, end, &value);
        if (p == NULL || !add(numbers, value))
            return NULL;
        if ((after = take(p, ',')) == NULL)
            return take_last(p, ']');
    }
    return NULL;
}

/* Takes a list of such lists. */
static const char *take_nested(const char *p, const char *end, Numbers *numbers)
{
    const char *after = take(p, '[');
    while ((p = after) != NULL) {
        if ((p = take_flat(p, end, numbers)) == NULL)
            return NULL;
        if ((after = take(p, ',')) == NULL)
            return take_last(p, ']');
    }
    return NULL;
}

/* What is read, and what becomes of it. */
typedef struct {
    const char *begin, *end;
    char *less, *to; /* what is left, and where it goes on */
    PyObject *lists; /* what is taken out */
} Lifting;

static void keep(Lifting *lifting, const char *from, const char *to)
{
    memcpy(lifting->to, from, (size_t)(to - from));
    lifting->to += to - from;
}

/* Takes out the list at `p`, and puts its number in its place. */
static const char *lift_list(Lifting *lifting, const char *p)
{
    Numbers numbers = {0};
    Py_ssize_t number = PyList_Size(lifting->lists);
    const char *after = NULL;
    if (number < MOST_LISTS) {
        const char *inside = take(p, '[');
        after = (inside != NULL && *inside == '[' ? take_nested : take_flat)(p, lifting->end, &numbers);
    }
    if (after != NULL) {
        PyObject *list = Py_BuildValue("y#nn", (const char *)numbers.values,
                                       numbers.count * (Py_ssize_t)sizeof *numbers.values,
                                       (Py_ssize_t)(p - lifting->begin), (Py_ssize_t)(after - lifting->begin));
        if (list == NULL || PyList_Append(lifting->lists, list) < 0)
            after = NULL;
        else
            lifting->to += PyOS_snprintf(lifting->to, 4, "%d", (int)number);
        Py_XDECREF(list);
    }
    PyMem_Free(numbers.values);
    return after;
}

/* Returns the quotation mark that ends a text, and says whether it stands there as it is; NULL if there is none. */
static const char *end_of_text(const char *p, const char *end, bool *plain)
{
    for (*plain = true; p < end && *p != '"'; p++)
        if (*p == '\\') {
            *plain = false;
            p++;
        }
    return p < end ? p : NULL;
}

static bool is_text(const char *begin, const char *end, const char *text)
{
    size_t size = strlen(text);
    return (size_t)(end - begin) == size && memcmp(begin, text, size) == 0;
}

/* Takes out every list of numbers that is called `data`, of an object in the list that is called `inputs`. */
static bool lift_all(Lifting *lifting)
{
    const char *p = lifting->begin, *end = lifting->end, *kept = p;
    Py_ssize_t depth = 0;
    bool inputs = false;
    while (p < end) {
        char c = *p++;
        depth += (c == '{') | (c == '[');
        depth -= (c == '}') | (c == ']');
        if (c != '"')
            continue;
        bool plain;
        const char *name = p, *over = end_of_text(p, end, &plain);
        if (over == NULL)
            return false;
        p = over + 1;
        const char *value = take(p, ':');
        if (value == NULL || (depth != 1 && !(depth == 3 && inputs)))
            continue;
        /* What it is called, and what the number of a list is, has to be sure. */
        if (!plain)
            return false;
        if (depth == 1)
            inputs = is_text(name, over, "inputs");
        else if (is_text(name, over, "data")) {
            if (*value != '[')
                return false;
            keep(lifting, kept, value);
            kept = value;
            const char *after = lift_list(lifting, value);
            if (PyErr_Occurred())
                return false;
            if (after != NULL)
                p = kept = after;
        }
    }
    keep(lifting, kept, end);
    return true;
}

const char tensors_lift_doc[] =
    "lift(text, /)\n--\n\n"
    "Take the numbers of the tensors out of the JSON of a request of the open protocol.\n\n"
    "Returns:\n"
    "    The JSON with a whole number in the place of each list that was taken out, which counts them from 0; and of\n"
    "    each the bytes of its numbers (float64; a missing one is NaN) and where it stood. A list with anything unusual\n"
    "    stays where it is. None where none is taken out, or it is not sure what is one.\n";

PyObject *tensors_lift(PyObject *Py_UNUSED(module), PyObject *text)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(text, &data, &size) < 0)
        return NULL;
    char *less = PyMem_Malloc((size_t)size + 1);
    if (less == NULL)
        return PyErr_NoMemory();
    Lifting lifting = {.begin = data, .end = data + size, .less = less, .to = less, .lists = PyList_New(0)};
    PyObject *found = NULL;
    if (lifting.lists != NULL && lift_all(&lifting) && PyList_Size(lifting.lists))
        found = Py_BuildValue("y#O", less, (Py_ssize_t)(lifting.to - less), lifting.lists);
    Py_XDECREF(lifting.lists);
    PyMem_Free(less);
    if (found == NULL && !PyErr_Occurred())
        found = Py_NewRef(Py_None);
    return found;
}
