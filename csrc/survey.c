/* Finding, in an interpreter that is about to end, the objects whose destruction may be seen outside the process. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "internal.h"

/* The size of the table of types, a power of two; how deep a survey follows untracked containers. */
#define TYPES 2048
#define MAX_DEPTH 64

enum verdict {
    UNKNOWN,
    QUIET,
    EACH,  /* every object of it is a suspect */
    NOTED, /* one object of it is a suspect, for all of them */
};

/* The facts about a type. */
struct kind {
    const PyTypeObject *type;
    enum verdict verdict;
    int is_metaclass;
    traverseproc traverse; /* NULL: its objects refer to no others */
    inquiry is_gc;
};

struct survey {
    const struct spx_survey *what;
    PyObject *suspects;
    long left; /* of the budget */
    int depth;
    int n_kinds;
    struct kind kinds[TYPES]; /* by address, with open addressing */
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

static struct kind kind_of(const struct spx_survey *what, PyTypeObject *type)
{
    unsigned long flags = PyType_GetFlags(type);
    struct kind kind = {.type = type, .is_metaclass = (flags & Py_TPFLAGS_TYPE_SUBCLASS) != 0};

    if (is_among(what->each, what->n_each, type))
        kind.verdict = EACH;
    /* A finalizer may have been added to a class since it was found quiet. */
    else if (is_among(what->quiet, what->n_quiet, type) && PyType_GetSlot(type, Py_tp_finalize) == NULL)
        kind.verdict = QUIET;
    if ((flags & Py_TPFLAGS_HAVE_GC) != 0) {
        kind.traverse = (traverseproc)PyType_GetSlot(type, Py_tp_traverse);
        kind.is_gc = (inquiry)PyType_GetSlot(type, Py_tp_is_gc);
    }
    return kind;
}

/* The facts about a type; NULL if there are too many types. */
static struct kind *find(struct survey *survey, PyTypeObject *type)
{
    size_t at = ((uintptr_t)type >> 4) % TYPES;

    while (survey->kinds[at].type != NULL && survey->kinds[at].type != type)
        at = (at + 1) % TYPES;
    if (survey->kinds[at].type == NULL) {
        if (survey->n_kinds == TYPES / 2)
            return NULL;
        survey->n_kinds++;
        survey->kinds[at] = kind_of(survey->what, type);
    }
    return &survey->kinds[at];
}

/* Whether a class made by Python code gives its objects a finalizer. The survey may miss these objects: the collector
 * may not track them, or they were created as objects of another class. */
static int gives_finalizer(PyTypeObject *type)
{
    return (PyType_GetFlags(type) & Py_TPFLAGS_HEAPTYPE) != 0 && PyType_GetSlot(type, Py_tp_finalize) != NULL;
}

static int suspect(struct survey *survey, PyObject *object)
{
    if (PyList_Append(survey->suspects, object) == 0)
        return 0;
    PyErr_Clear();
    return -ENOMEM;
}

static int judge(struct survey *survey, PyObject *object, struct kind *kind)
{
    if (kind->is_metaclass && gives_finalizer((PyTypeObject *)object))
        return suspect(survey, object);
    if (kind->verdict == QUIET || kind->verdict == NOTED)
        return 0;
    if (kind->verdict == UNKNOWN)
        kind->verdict = NOTED;
    return suspect(survey, object);
}

static int visit(PyObject *object, void *context);

/* Look at one object and at the objects that it refers to: 0, or -errno. Borrowed references only: to write a reference
 * count would copy a page. */
static int look(struct survey *survey, PyObject *object)
{
    struct kind *kind = find(survey, Py_TYPE(object));

    if (kind == NULL)
        return -EOVERFLOW;
    int result = judge(survey, object, kind);
    /* The type of static classes in C is a container type, but they are no containers. */
    if (result == 0 && kind->traverse != NULL && (kind->is_gc == NULL || kind->is_gc(object)))
        result = kind->traverse(object, visit, survey);
    return result;
}

/* tp_traverse calls it for every object to which an object refers. Tracked objects are passed over: they are in the
 * list of the survey, or shared with the template. */
static int visit(PyObject *object, void *context)
{
    struct survey *survey = context;

    if (PyObject_GC_IsTracked(object))
        return 0;
    if (--survey->left < 0 || survey->depth == MAX_DEPTH)
        return -EOVERFLOW;
    survey->depth++;
    int result = look(survey, object);
    survey->depth--;
    return result;
}

int spx_survey(const struct spx_survey *what, void *objects, void *ret_suspects)
{
    struct survey survey = {.what = what, .suspects = ret_suspects, .left = what->budget};
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_ssize_t n = PyList_Size(objects);
    int result = 0;

    for (Py_ssize_t i = 0; i < n && result == 0; i++)
        result = look(&survey, PyList_GetItem(objects, i));
    PyGILState_Release(gil);
    return result;
}

void spx_types(void *types, int *ret_finalized, long *ret_dealloc)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_ssize_t n = PyList_Size(types);

    for (Py_ssize_t i = 0; i < n; i++) {
        PyTypeObject *type = (PyTypeObject *)PyList_GetItem(types, i);
        ret_finalized[i] =
            PyType_GetSlot(type, Py_tp_finalize) != NULL || PyType_GetSlot(type, Py_tp_del) != NULL;
        ret_dealloc[i] = (long)(uintptr_t)PyType_GetSlot(type, Py_tp_dealloc);
    }
    PyGILState_Release(gil);
}
