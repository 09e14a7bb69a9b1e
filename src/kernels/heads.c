/* The head of a request, known by its bytes. */
#include "kernels.h"

const char heads_find_doc[] =
    "find(known, data, /)\n--\n\n"
    "Look up the bytes before the first empty line of a request.\n\n"
    "Args:\n"
    "    known: What is known, by such bytes.\n"
    "    data: The request.\n\n"
    "Returns:\n"
    "    What is known of them, and the bytes behind the empty line; None where nothing is, where there is no such line,\n"
    "    or where it is not followed by as many bytes as the `length` of what is known.\n";

/* Returns where the empty line begins, with the end of the line before it; NULL if there is none. */
static const char *empty_line(const char *data, Py_ssize_t size)
{
    const char *end = data + size;
    for (const char *at = data; end - at >= 4 && (at = memchr(at, '\r', (size_t)(end - at - 3))) != NULL; at++)
        if (memcmp(at, "\r\n\r\n", 4) == 0)
            return at;
    return NULL;
}

PyObject *heads_find(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    if (!are_given(count, 2) || PyBytes_AsStringAndSize(args[1], &data, &size) < 0)
        return NULL;
    if (!PyDict_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "what is known is no dictionary");
        return NULL;
    }
    const char *end = empty_line(data, size);
    if (end == NULL)
        return Py_NewRef(Py_None);
    PyObject *top = PyBytes_FromStringAndSize(data, end - data);
    /* Held, since whatever runs meanwhile may forget what is known. */
    PyObject *head = top == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(args[0], top));
    Py_XDECREF(top);
    PyObject *length = head == NULL ? NULL : PyObject_GetAttrString(head, "length");
    Py_ssize_t behind = size - (end - data) - 4, wanted = length == NULL ? -1 : PyLong_AsSsize_t(length);
    Py_XDECREF(length);
    PyObject *body = behind == wanted ? PyBytes_FromStringAndSize(end + 4, behind) : NULL;
    PyObject *found = body == NULL ? NULL : PyTuple_Pack(2, head, body);
    Py_XDECREF(body);
    Py_XDECREF(head);
    return found == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : found;
}
