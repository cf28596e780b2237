/* What lives in an interpreter that is about to end: which objects may do something that can be seen outside. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "internal.h"

/* How many types are noted so that one object of each is a suspect, and how deep untracked containers are followed. */
#define MAX_TYPES 256
#define MAX_DEPTH 64

struct survey {
    const struct spx_survey *what;
    PyObject *suspects;
    long left; /* of the budget */
    int depth;
    int n_types;
    const PyTypeObject *types[MAX_TYPES];
    const PyTypeObject *last; /* quiet, and asked for again mostly */
};

static int is_among(const long *sorted, int n, const PyTypeObject *type)
{
    long address = (long)(uintptr_t)type;
    int low = 0;

    while (low < n) {
        int middle = low + ((n - low) / 2);
        if (sorted[middle] == address)
            return 1;
        if (sorted[middle] < address)
            low = middle + 1;
        else
            n = middle;
    }
    return 0;
}

/* Whether a type has been noted; it is from now on. -EOVERFLOW: there is no room for more. */
static int was_noted(struct survey *survey, const PyTypeObject *type)
{
    for (int i = 0; i < survey->n_types; i++)
        if (survey->types[i] == type)
            return 1;
    if (survey->n_types == MAX_TYPES)
        return -EOVERFLOW;
    survey->types[survey->n_types++] = type;
    return 0;
}

static int is_class(PyObject *object)
{
    return (PyType_GetFlags(Py_TYPE(object)) & Py_TPFLAGS_TYPE_SUBCLASS) != 0;
}

/* Whether a class has objects with a finalizer that the collector doesn't track: they could be anywhere. */
static int hides_objects(PyTypeObject *type)
{
    return (PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC) == 0 && PyType_GetSlot(type, Py_tp_finalize) != NULL;
}

static int suspect(struct survey *survey, PyObject *object)
{
    if (PyList_Append(survey->suspects, object) == 0)
        return 0;
    PyErr_Clear();
    return -ENOMEM;
}

/* Look at one object: 0, or -errno. Borrowed references only: a count that is written is a page that is copied. */
static int look(struct survey *survey, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    const struct spx_survey *what = survey->what;

    if (type == survey->last)
        return 0;
    if (is_among(what->each, what->n_each, type) ||
        (is_class(object) && hides_objects((PyTypeObject *)object)))
        return suspect(survey, object);
    /* A finalizer may have been given to the class since it was found quiet. */
    if (is_among(what->quiet, what->n_quiet, type) && PyType_GetSlot(type, Py_tp_finalize) == NULL) {
        if (!is_class(object))
            survey->last = type;
        return 0;
    }
    int noted = was_noted(survey, type);
    if (noted != 0)
        return noted < 0 ? noted : 0;
    return suspect(survey, object);
}

/* Whether the collector knows of an object: not of a class in C, though it knows of classes. */
static int is_container(PyObject *object)
{
    inquiry is_gc = (inquiry)PyType_GetSlot(Py_TYPE(object), Py_tp_is_gc);

    return (PyType_GetFlags(Py_TYPE(object)) & Py_TPFLAGS_HAVE_GC) != 0 && (is_gc == NULL || is_gc(object));
}

static int visit(PyObject *object, void *context);

static int visit_references_of(struct survey *survey, PyObject *object)
{
    traverseproc traverse = (traverseproc)PyType_GetSlot(Py_TYPE(object), Py_tp_traverse);

    return traverse == NULL ? 0 : traverse(object, visit, survey);
}

/* As tp_traverse calls it for everything to which an object refers. What is tracked is in the list of those that are
 * looked at, or is shared with the template. */
static int visit(PyObject *object, void *context)
{
    struct survey *survey = context;

    if (PyObject_GC_IsTracked(object))
        return 0;
    if (--survey->left < 0 || survey->depth > MAX_DEPTH)
        return -EOVERFLOW;
    int result = look(survey, object);
    if (result == 0 && is_container(object)) {
        survey->depth++;
        result = visit_references_of(survey, object);
        survey->depth--;
    }
    return result;
}

static int look_at_all(struct survey *survey, PyObject *objects)
{
    Py_ssize_t n = PyList_Size(objects);
    int result = 0;

    for (Py_ssize_t i = 0; i < n && result == 0; i++) {
        PyObject *object = PyList_GetItem(objects, i);
        result = look(survey, object);
        if (result == 0)
            result = visit_references_of(survey, object);
    }
    return result;
}

int spx_survey(const struct spx_survey *what, void *objects, void *ret_suspects)
{
    struct survey survey = {.what = what, .suspects = ret_suspects, .left = what->budget};
    PyGILState_STATE gil = PyGILState_Ensure();
    int result = look_at_all(&survey, objects);

    PyGILState_Release(gil);
    return result;
}

int spx_type(void *kind, long *ret_dealloc)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int finalizes = PyType_GetSlot(kind, Py_tp_finalize) != NULL || PyType_GetSlot(kind, Py_tp_del) != NULL;

    *ret_dealloc = (long)(uintptr_t)PyType_GetSlot(kind, Py_tp_dealloc);
    PyGILState_Release(gil);
    return finalizes;
}
