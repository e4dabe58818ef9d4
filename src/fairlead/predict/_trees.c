/* The walk through a forest: `fairlead.predict._trees`, used by `fairlead.predict.trees`.
 *
 * What a forest is made of is told in forest.py; here it is checked whole and then walked.
 *
 * Why this is fast. A walk down one tree waits for memory at every node. So many walks ("chains": a row and a
 * tree each) go down together, level by level, and their loads overlap. A chain that reached its leaf falls out
 * of the list without a branch: every chain is written to the list's end, and the end moves on only for those
 * that go on. Nothing in the loop is guessed, so nothing is guessed wrongly.
 *
 * Layer L1; the stable ABI of Python 3.11. Nothing is read that the constructor did not check.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)0)
#endif

enum {
    CHAINS = 256,           /* that go down together */
    BLOCK_BINS = 16384,     /* bins of a block of rows: 32 KB, what the nearest cache holds */
    GIL_ROWS = 64,          /* from here on other threads may run meanwhile */
    LEAF = 0x8000,          /* in a node's slot */
};

enum { IDENTITY, SIGMOID, SOFTMAX, EXP, SIGNED_SQUARE, N_LINKS };
enum { NUMBER, POSITIVE, RAW_ABOVE_ZERO, RAW_AT_LEAST_ZERO, LARGEST, N_ANSWERS };

/* A bin greater than `bin` goes to `child + 1`, others to `child`. In a leaf `child` is the place of its values. */
typedef struct {
    uint16_t bin, slot;
    uint32_t child;
} Node;

/* In a row, the bin of `slot` becomes `bin`. */
typedef struct {
    uint16_t slot, bin;
} Entry;

typedef struct {
    uint32_t feature, first_interval, n_intervals;
    int is_code;
    const double *cuts;
} Feature;

typedef struct {
    PyObject_HEAD
    Py_ssize_t n_features, n_used, n_slots, n_trees, n_nodes, n_leaves, n_values, n_targets;
    Feature *used;
    double *cuts;
    uint32_t *entry_starts;
    Entry *entries;
    uint16_t *usual;
    Node *nodes;
    uint32_t *roots;
    uint16_t *targets;
    double *leaves;
    double *base;
    double divisor, scale;
    int link, answer, single;
    PyObject *classes; /* a tuple, or NULL */
} Forest;

/* ---- Before the walk: numbers become bins ---- */

/* Find the interval of `x`: how many cuts are below it. NaN comes last. */
static inline uint32_t interval_of(const Feature *feature, double x)
{
    uint32_t last = feature->n_intervals - 1;
    if (x != x)
        return last;
    if (feature->is_code) /* -1 is the code of an unseen category, and so is all that is no code */
        return x >= 0.0 && x < (double)(last - 1) ? (uint32_t)x + 1 : 0;
    const double *cut = feature->cuts;
    uint32_t n = last - 1;
    if (n == 0)
        return 0;
    while (n > 1) { /* no branch inside: which half it is cannot be guessed */
        uint32_t half = n / 2;
        cut = cut[half - 1] < x ? cut + half : cut;
        n -= half;
    }
    return (uint32_t)(cut - feature->cuts) + (cut[0] < x);
}

/* Make the bins of rows, feature by feature, so that a feature's cuts stay near while all rows look for theirs. */
static void bin_rows(const Forest *forest, const double *X, Py_ssize_t n_rows, uint16_t *bins)
{
    Py_ssize_t n_slots = forest->n_slots;
    for (Py_ssize_t row = 0; row < n_rows; row++)
        memcpy(bins + row * n_slots, forest->usual, (size_t)n_slots * sizeof *bins);
    for (Py_ssize_t i = 0; i < forest->n_used; i++) {
        const Feature *feature = &forest->used[i];
        const uint32_t *starts = forest->entry_starts + feature->first_interval;
        const double *x = X + feature->feature;
        uint16_t *mine = bins;
        for (Py_ssize_t row = 0; row < n_rows; row++, x += forest->n_features, mine += n_slots) {
            uint32_t interval = interval_of(feature, *x);
            for (uint32_t e = starts[interval]; e < starts[interval + 1]; e++)
                mine[forest->entries[e].slot] = forest->entries[e].bin;
        }
    }
}

/* ---- The walk ---- */

typedef struct {
    uint32_t node[CHAINS], row[CHAINS], place[CHAINS];
    uint32_t leaf[CHAINS]; /* by place: where the chain's values are */
} Chains;

/* Take `n` chains down to their leaves. `row` is where a chain's bins begin, always 0 where there is one row. */
static inline void walk(const Node *restrict nodes, const uint16_t *restrict bins, Chains *restrict chains, uint32_t n,
                        int one_row)
{
    while (n) {
        uint32_t still = 0;
        for (uint32_t i = 0; i < n; i++) {
            Node node = nodes[chains->node[i]];
            uint32_t place = chains->place[i];
            uint32_t row = one_row ? 0 : chains->row[i];
            uint32_t next = node.child + (bins[row + (node.slot & (LEAF - 1))] > node.bin);
            chains->leaf[place] = node.child;
            PREFETCH(&nodes[next]);
            chains->node[still] = next;
            chains->place[still] = place;
            if (!one_row)
                chains->row[still] = row;
            still += !(node.slot & LEAF);
        }
        n = still;
    }
}

/* Add in the original's order of trees; `sums` has n_targets numbers a row. */
static void add_leaves(const Forest *forest, const uint32_t *leaf, Py_ssize_t first, Py_ssize_t n_trees,
                       Py_ssize_t n_rows, double *sums)
{
    Py_ssize_t n_targets = forest->n_targets, n_values = forest->n_values;
    for (Py_ssize_t tree = 0; tree < n_trees; tree++, leaf += n_rows) {
        double *sum = sums + forest->targets[first + tree];
        if (n_values > 1)
            for (Py_ssize_t row = 0; row < n_rows; row++, sum += n_targets)
                for (Py_ssize_t value = 0; value < n_values; value++)
                    sum[value] += forest->leaves[leaf[row] * n_values + value];
        else if (forest->single)
            /* The sum of two floats, rounded from double, is the float sum. */
            for (Py_ssize_t row = 0; row < n_rows; row++, sum += n_targets)
                *sum = (float)(*sum + forest->leaves[leaf[row]]);
        else
            for (Py_ssize_t row = 0; row < n_rows; row++, sum += n_targets)
                *sum += forest->leaves[leaf[row]];
    }
}

static void sum_block(const Forest *forest, const uint16_t *bins, Py_ssize_t n_rows, double *sums)
{
    Chains chains;
    Py_ssize_t at_once = CHAINS / n_rows;
    for (Py_ssize_t row = 0; row < n_rows; row++)
        memcpy(sums + row * forest->n_targets, forest->base, (size_t)forest->n_targets * sizeof *sums);
    for (Py_ssize_t first = 0; first < forest->n_trees; first += at_once) {
        Py_ssize_t n_trees = forest->n_trees - first < at_once ? forest->n_trees - first : at_once;
        uint32_t n = 0;
        for (Py_ssize_t tree = 0; tree < n_trees; tree++)
            for (Py_ssize_t row = 0; row < n_rows; row++, n++) {
                chains.node[n] = forest->roots[first + tree];
                chains.row[n] = (uint32_t)(row * forest->n_slots);
                chains.place[n] = n;
            }
        if (n_rows == 1)
            walk(forest->nodes, bins, &chains, n, 1);
        else
            walk(forest->nodes, bins, &chains, n, 0);
        add_leaves(forest, chains.leaf, first, n_trees, n_rows, sums);
    }
}

/* ---- After the walk: sums become answers ---- */

static double exp_of(const Forest *forest, double x)
{
    return forest->single ? (double)expf((float)x) : exp(x);
}

static double linked(const Forest *forest, double x)
{
    switch (forest->link) {
    case SIGMOID:
        if (forest->single)
            return (double)(1.0f / (1.0f + expf(-(float)x)));
        return 1.0 / (1.0 + exp(-x));
    case EXP:
        return exp_of(forest, x);
    case SIGNED_SQUARE:
        return x < 0.0 ? -(x * x) : x * x;
    default:
        return x;
    }
}

static void softmax(const Forest *forest, double *x)
{
    Py_ssize_t n = forest->n_targets;
    double largest = x[0], total = 0.0;
    for (Py_ssize_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (Py_ssize_t i = 0; i < n; i++) {
        x[i] = forest->single ? exp_of(forest, (float)(x[i] - largest)) : exp(x[i] - largest);
        total = forest->single ? (float)(total + x[i]) : total + x[i];
    }
    for (Py_ssize_t i = 0; i < n; i++)
        x[i] = forest->single ? (float)(x[i] / total) : x[i] / total;
}

/* Finish one row: `sums` has n_targets numbers, `out` gets as many, or two for a binary classifier. */
static uint32_t finish_row(const Forest *forest, double *sums, double *out)
{
    Py_ssize_t n = forest->n_targets;
    uint32_t label = 0;
    double raw = sums[0];
    for (Py_ssize_t i = 0; i < n; i++)
        sums[i] = sums[i] / forest->divisor * forest->scale;
    if (forest->link == SOFTMAX)
        softmax(forest, sums);
    else
        for (Py_ssize_t i = 0; i < n; i++)
            sums[i] = linked(forest, sums[i]);
    switch (forest->answer) {
    case NUMBER:
        out[0] = sums[0];
        return 0;
    case LARGEST:
        for (Py_ssize_t i = 0; i < n; i++) {
            out[i] = sums[i];
            label = sums[i] > sums[label] ? (uint32_t)i : label;
        }
        return label;
    default:
        out[0] = 1.0 - sums[0];
        out[1] = sums[0];
        if (forest->answer == RAW_ABOVE_ZERO)
            return raw > 0.0;
        return forest->answer == RAW_AT_LEAST_ZERO ? raw >= 0.0 : sums[0] > 0.5;
    }
}

static Py_ssize_t width_of(const Forest *forest)
{
    return forest->answer == NUMBER ? 1 : forest->answer == LARGEST ? forest->n_targets : 2;
}

/* Answer all rows. Returns -1 where there is no memory. */
static int answer_rows(const Forest *forest, const double *X, Py_ssize_t n_rows, double *out, uint32_t *labels)
{
    Py_ssize_t largest = forest->n_slots > forest->n_targets ? forest->n_slots : forest->n_targets;
    Py_ssize_t block = BLOCK_BINS / largest, width = width_of(forest);
    block = block < 1 ? 1 : block > CHAINS ? CHAINS : block;
    block = block > n_rows ? n_rows : block;
    if (block == 0)
        return 0;
    double *sums = malloc((size_t)block * ((size_t)forest->n_targets * sizeof(double) + (size_t)forest->n_slots * sizeof(uint16_t)));
    if (sums == NULL)
        return -1;
    uint16_t *bins = (uint16_t *)(sums + block * forest->n_targets);
    for (Py_ssize_t first = 0; first < n_rows; first += block) {
        Py_ssize_t n = n_rows - first < block ? n_rows - first : block;
        bin_rows(forest, X + first * forest->n_features, n, bins);
        sum_block(forest, bins, n, sums);
        for (Py_ssize_t row = 0; row < n; row++)
            labels[first + row] = finish_row(forest, sums + row * forest->n_targets, out + (first + row) * width);
    }
    free(sums);
    return 0;
}

/* ---- Python ---- */

static int refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return -1;
}

/* Copy a buffer of whole items into memory of our own; there is always at least one item's worth of it. */
static void *copied(PyObject *source, size_t item, Py_ssize_t *count)
{
    Py_buffer view;
    if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    void *copy = NULL;
    if ((size_t)view.len % item)
        refuse("expected a whole number of items in each array");
    else if ((copy = malloc((size_t)view.len + item)) == NULL)
        PyErr_NoMemory();
    else {
        memcpy(copy, view.buf, (size_t)view.len);
        *count = (Py_ssize_t)((size_t)view.len / item);
    }
    PyBuffer_Release(&view);
    return copy;
}

static int check_nodes(const Forest *forest)
{
    for (Py_ssize_t i = 0; i < forest->n_nodes; i++) {
        Node node = forest->nodes[i];
        if (node.slot & LEAF) {
            if (node.slot != LEAF || (Py_ssize_t)node.child >= forest->n_leaves)
                return refuse("expected a leaf's values inside the table of leaves");
            continue;
        }
        if ((Py_ssize_t)node.slot >= forest->n_slots)
            return refuse("expected a node's slot among the slots");
        /* Children come after their parent: so every walk ends. */
        if ((Py_ssize_t)node.child <= i || (Py_ssize_t)node.child >= forest->n_nodes - 1)
            return refuse("expected a node's children after it and inside the table of nodes");
    }
    for (Py_ssize_t i = 0; i < forest->n_trees; i++)
        if ((Py_ssize_t)forest->roots[i] >= forest->n_nodes)
            return refuse("expected a tree's root inside the table of nodes");
    for (Py_ssize_t i = 0; i < forest->n_trees; i++)
        if ((Py_ssize_t)forest->targets[i] + forest->n_values > forest->n_targets)
            return refuse("expected a tree's target among the targets");
    return 0;
}

/* Number the intervals of all features one after the other; features that no split looks at are left out. */
static int check_features(Forest *forest, const int32_t *sizes, Py_ssize_t n_cuts, Py_ssize_t n_starts, Py_ssize_t n_entries)
{
    uint64_t first = 0, cut = 0;
    for (Py_ssize_t i = 0; i < forest->n_features; i++) {
        /* A feature of codes tells how many with a negative number: ~n. */
        int is_code = sizes[i] < 0;
        uint64_t n = is_code ? (uint64_t)~sizes[i] : (uint64_t)sizes[i];
        if (first + n + 2 >= (uint64_t)n_starts || (!is_code && cut + n > (uint64_t)n_cuts))
            return refuse("expected as many cuts and intervals as the features tell");
        Feature feature = {(uint32_t)i, (uint32_t)first, (uint32_t)n + 2, is_code, forest->cuts + (is_code ? 0 : cut)};
        for (uint64_t j = 0; !is_code && j < n; j++)
            if (!(j == 0 ? feature.cuts[j] == feature.cuts[j] : feature.cuts[j - 1] < feature.cuts[j]))
                return refuse("expected the cuts of a feature in rising order");
        first += n + 2;
        cut += is_code ? 0 : n;
        forest->used[forest->n_used] = feature;
        forest->n_used += forest->entry_starts[feature.first_interval] != forest->entry_starts[first];
    }
    if (first + 1 != (uint64_t)n_starts || cut != (uint64_t)n_cuts)
        return refuse("expected as many cuts and intervals as the features tell");
    if (forest->entry_starts[0] != 0 || (Py_ssize_t)forest->entry_starts[n_starts - 1] != n_entries)
        return refuse("expected the entries of the intervals one after the other");
    for (Py_ssize_t i = 1; i < n_starts; i++)
        if (forest->entry_starts[i] < forest->entry_starts[i - 1])
            return refuse("expected the entries of the intervals one after the other");
    for (Py_ssize_t i = 0; i < n_entries; i++)
        if ((Py_ssize_t)forest->entries[i].slot >= forest->n_slots)
            return refuse("expected an entry's slot among the slots");
    return 0;
}

static int check_answer(const Forest *forest)
{
    if (forest->n_targets < 1 || forest->n_targets > 65535 || forest->n_values < 1)
        return refuse("expected at least one target and value");
    if (forest->n_slots < 1 || forest->n_slots >= LEAF) /* a leaf looks at slot 0, in vain */
        return refuse("expected 1 to 32767 slots");
    if (forest->link < 0 || forest->link >= N_LINKS || forest->answer < 0 || forest->answer >= N_ANSWERS)
        return refuse("expected a link and an answer that are known");
    if (forest->answer != LARGEST && forest->n_targets != 1)
        return refuse("expected one target, or several classes");
    if ((forest->answer == NUMBER) != (forest->classes == NULL))
        return refuse("expected classes for a classifier alone");
    if (forest->classes != NULL && PyTuple_Size(forest->classes) != (forest->answer == LARGEST ? forest->n_targets : 2))
        return refuse("expected as many classes as there are probabilities");
    return 0;
}

static int fill(Forest *forest, PyObject *const arrays[10], Py_ssize_t n_values)
{
    Py_ssize_t n_cuts, n_starts, n_entries, n_tree_targets, n_numbers;
    int32_t *sizes = copied(arrays[0], sizeof *sizes, &forest->n_features);
    if (sizes == NULL)
        return -1;
    int failed = -1;
    if ((forest->cuts = copied(arrays[1], sizeof *forest->cuts, &n_cuts)) != NULL &&
        (forest->entry_starts = copied(arrays[2], sizeof *forest->entry_starts, &n_starts)) != NULL &&
        (forest->entries = copied(arrays[3], sizeof *forest->entries, &n_entries)) != NULL &&
        (forest->usual = copied(arrays[4], sizeof *forest->usual, &forest->n_slots)) != NULL &&
        (forest->nodes = copied(arrays[5], sizeof *forest->nodes, &forest->n_nodes)) != NULL &&
        (forest->roots = copied(arrays[6], sizeof *forest->roots, &forest->n_trees)) != NULL &&
        (forest->targets = copied(arrays[7], sizeof *forest->targets, &n_tree_targets)) != NULL &&
        (forest->leaves = copied(arrays[8], sizeof *forest->leaves, &n_numbers)) != NULL &&
        (forest->base = copied(arrays[9], sizeof *forest->base, &forest->n_targets)) != NULL) {
        forest->n_values = n_values;
        if (check_answer(forest) < 0)
            ;
        else if (n_numbers % n_values || n_tree_targets != forest->n_trees || n_starts < 1 || n_starts > INT32_MAX ||
                 forest->n_nodes > INT32_MAX)
            refuse("expected arrays whose lengths fit together");
        else if ((forest->used = malloc(((size_t)forest->n_features + 1) * sizeof *forest->used)) == NULL)
            PyErr_NoMemory();
        else {
            forest->n_leaves = n_numbers / n_values;
            failed = check_features(forest, sizes, n_cuts, n_starts, n_entries) < 0 || check_nodes(forest) < 0 ? -1 : 0;
        }
    }
    free(sizes);
    return failed;
}

static void Forest_dealloc(PyObject *self)
{
    Forest *forest = (Forest *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    void *owned[] = {forest->used,  forest->cuts,    forest->entry_starts, forest->entries, forest->usual,
                     forest->nodes, forest->roots,   forest->targets,      forest->leaves,  forest->base};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    Py_XDECREF(forest->classes);
    release(self);
    Py_DECREF(type);
}

static PyObject *Forest_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *arrays[10], *classes;
    Py_ssize_t n_values;
    double divisor, scale;
    int link, answer, single;
    if (kwargs != NULL && PyDict_Size(kwargs)) {
        refuse("Forest takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "(OOOOOOOOOO)nddiipO", &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4],
                          &arrays[5], &arrays[6], &arrays[7], &arrays[8], &arrays[9], &n_values, &divisor, &scale,
                          &link, &answer, &single, &classes))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Forest *forest = (Forest *)allocate(type, 0);
    if (forest == NULL)
        return NULL;
    forest->divisor = divisor;
    forest->scale = scale;
    forest->link = link;
    forest->answer = answer;
    forest->single = single;
    if (classes != Py_None) {
        if (!PyTuple_Check(classes)) {
            refuse("expected classes as a tuple");
            Py_DECREF(forest);
            return NULL;
        }
        forest->classes = Py_NewRef(classes);
    }
    if (fill(forest, arrays, n_values) < 0) {
        Py_DECREF(forest);
        return NULL;
    }
    return (PyObject *)forest;
}

static PyObject *labels_of(const Forest *forest, const uint32_t *labels, Py_ssize_t n_rows)
{
    PyObject *found = PyList_New(n_rows);
    for (Py_ssize_t i = 0; found != NULL && i < n_rows; i++)
        PyList_SetItem(found, i, Py_NewRef(PyTuple_GetItem(forest->classes, labels[i])));
    return found;
}

static int is_float64(const Py_buffer *view)
{
    return view->itemsize == sizeof(double) && view->format != NULL && strcmp(view->format, "d") == 0;
}

/* Fill `out`, and `codes` with the places of the labels among the classes; where it is NULL, make a list of labels. */
static PyObject *answered(const Forest *forest, const Py_buffer *X, const Py_buffer *out, const Py_buffer *codes)
{
    if (!is_float64(X) || X->ndim != 2 || X->shape[1] != forest->n_features) {
        PyErr_Format(PyExc_ValueError, "X: expected float64 of shape (n_rows, %zd)", forest->n_features);
        return NULL;
    }
    Py_ssize_t n_rows = X->shape[0];
    if (!is_float64(out) || out->len != n_rows * width_of(forest) * (Py_ssize_t)sizeof(double)) {
        PyErr_Format(PyExc_ValueError, "out: expected float64 with room for %zd rows of %zd", n_rows, width_of(forest));
        return NULL;
    }
    if (codes != NULL && (codes->itemsize != sizeof(uint32_t) || codes->len != n_rows * (Py_ssize_t)sizeof(uint32_t))) {
        PyErr_Format(PyExc_ValueError, "codes: expected uint32 with room for %zd rows", n_rows);
        return NULL;
    }
    uint32_t few[GIL_ROWS], *labels = codes != NULL ? codes->buf : few, *many = NULL;
    if (codes == NULL && n_rows > GIL_ROWS && (labels = many = malloc((size_t)n_rows * sizeof *labels)) == NULL)
        return PyErr_NoMemory();
    int failed;
    if (n_rows > GIL_ROWS) {
        Py_BEGIN_ALLOW_THREADS
        failed = answer_rows(forest, X->buf, n_rows, out->buf, labels);
        Py_END_ALLOW_THREADS
    } else
        failed = answer_rows(forest, X->buf, n_rows, out->buf, labels);
    int is_list = codes == NULL && forest->classes != NULL;
    PyObject *found = failed ? PyErr_NoMemory() : is_list ? labels_of(forest, labels, n_rows) : Py_NewRef(Py_None);
    free(many);
    return found;
}

static PyObject *Forest_run(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    Py_buffer X, out, codes;
    if (n_args != 2 && n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "run takes X, out and maybe codes");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &X, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return NULL;
    PyObject *found = NULL;
    if (PyObject_GetBuffer(args[1], &out, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) == 0) {
        if (n_args == 2)
            found = answered((Forest *)self, &X, &out, NULL);
        else if (PyObject_GetBuffer(args[2], &codes, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) == 0) {
            found = answered((Forest *)self, &X, &out, &codes);
            PyBuffer_Release(&codes);
        }
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&X);
    return found;
}

static PyMethodDef Forest_methods[] = {
    {"run", (PyCFunction)(void (*)(void))Forest_run, METH_FASTCALL,
     "run(X, out[, codes]) -> labels, or None of a regressor\n\nFill `out` with values or probabilities of the rows of `X`;\n"
     "with `codes`, fill these with the places of the labels among the classes, and return None."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Forest_slots[] = {
    {Py_tp_new, (void *)Forest_new},
    {Py_tp_dealloc, (void *)Forest_dealloc},
    {Py_tp_methods, Forest_methods},
    {Py_tp_doc, "A forest, checked and ready to run. Threads may share it."},
    {0, NULL},
};

static PyType_Spec Forest_spec = {
    .name = "fairlead.predict._trees.Forest",
    .basicsize = sizeof(Forest),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Forest_slots,
};

static int fill_module(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&Forest_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Forest", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)fill_module},
    {0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fairlead.predict._trees",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__trees(void)
{
    return PyModuleDef_Init(&module);
}
