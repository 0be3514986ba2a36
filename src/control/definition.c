/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of a definition: text that a person can read and edit.
 *
 *   lodge machine 1
 *   folder /home/user/lab
 *   --kernel=vmlinuz
 *   --memory=1G
 *
 * The first line is the form and its version. A line is an option and its value, as on the command
 * line in one word; in values and the folder, a backslash is doubled and a newline is \n. Empty
 * lines and lines that begin with # are passed over.
 */
#include "definition.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"

#include "registry.h"

#define FORM "lodge machine "
#define VERSION "1"
#define FOLDER "folder "
#define WORDS_MAX 1024u

Definition *definition_new(const char *folder)
{
    Definition *d = g_new0(Definition, 1);
    d->folder = g_strdup(folder);
    d->words = g_ptr_array_new_with_free_func(g_free);
    return d;
}

void definition_free(Definition *d)
{
    if (!d)
        return;
    g_free(d->folder);
    g_ptr_array_free(d->words, TRUE);
    g_free(d);
}

void definition_add(Definition *d, const char *option, const char *value)
{
    g_ptr_array_add(d->words, value ? g_strdup_printf("--%s=%s", option, value)
                                    : g_strdup_printf("--%s", option));
}

bool definition_remove(Definition *d, const char *option)
{
    size_t len = strlen(option);
    bool found = false;
    for (unsigned i = d->words->len; i-- > 0;) {
        const char *word = (const char *)g_ptr_array_index(d->words, i) + 2;
        if (strncmp(word, option, len) || (word[len] && word[len] != '='))
            continue;
        g_ptr_array_remove_index(d->words, i);
        found = true;
    }
    return found;
}

static void append_escaped(GString *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\')
            g_string_append(out, "\\\\");
        else if (*text == '\n')
            g_string_append(out, "\\n");
        else
            g_string_append_c(out, *text);
    }
    g_string_append_c(out, '\n');
}

char *definition_format(const Definition *d)
{
    GString *out = g_string_new(FORM VERSION "\n" FOLDER);
    append_escaped(out, d->folder);
    for (unsigned i = 0; i < d->words->len; i++)
        append_escaped(out, g_ptr_array_index(d->words, i));
    return g_string_free(out, FALSE);
}

/* Transfer full; NULL: a backslash before something else. */
static char *unescape(const char *text)
{
    GString *out = g_string_new(NULL);
    for (; *text; text++) {
        if (*text != '\\') {
            g_string_append_c(out, *text);
            continue;
        }
        text++;
        if (*text != '\\' && *text != 'n') {
            g_string_free(out, TRUE);
            return NULL;
        }
        g_string_append_c(out, *text == 'n' ? '\n' : '\\');
    }
    return g_string_free(out, FALSE);
}

static bool wrong_line(unsigned at, const char *why, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE, "line %u: %s", at + 1, why);
}

static bool take_line(Definition *d, const char *line, unsigned at, GError **error)
{
    g_autofree char *plain = unescape(line);
    if (!plain)
        return wrong_line(at, "a backslash stands before neither n nor a backslash", error);
    if (g_str_has_prefix(plain, FOLDER)) {
        if (d->folder)
            return wrong_line(at, "the folder is given twice", error);
        d->folder = g_strdup(plain + strlen(FOLDER));
        return g_path_is_absolute(d->folder) ||
               wrong_line(at, "the folder is no absolute path", error);
    }
    if (!g_str_has_prefix(plain, "--") || !g_ascii_isalnum(plain[2]))
        return wrong_line(at, "is no option; write --NAME or --NAME=VALUE", error);
    if (d->words->len >= WORDS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "line %u: more than %u options", at + 1,
                          WORDS_MAX);
    g_ptr_array_add(d->words, g_steal_pointer(&plain));
    return true;
}

Definition *definition_parse(const char *text, GError **error)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(Definition) d = definition_new(NULL);
    if (!lines[0] || !g_str_has_prefix(lines[0], FORM)) {
        lodge_fail(error, LODGE_ERROR_IMAGE, "line 1: is not \"" FORM VERSION "\"");
        return NULL;
    }
    if (strcmp(lines[0] + strlen(FORM), VERSION)) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "is of another version of the form than " VERSION
                   "; use the lodge that wrote it");
        return NULL;
    }
    for (unsigned i = 1; lines[i]; i++) {
        if (lines[i][0] && lines[i][0] != '#' && !take_line(d, lines[i], i, error))
            return NULL;
    }
    if (!d->folder) {
        lodge_fail(error, LODGE_ERROR_IMAGE, "has no folder; add a line \"" FOLDER "PATH\"");
        return NULL;
    }
    return g_steal_pointer(&d);
}

/* The whole file, transfer full; NULL with errno. */
static char *read_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    g_autofree char *text = g_malloc(DEFINITION_BYTES_MAX + 1);
    size_t len = 0;
    ssize_t n = 0;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (!ok)
        errno = EINVAL;
    while (ok && len <= DEFINITION_BYTES_MAX) {
        n = read(fd, text + len, DEFINITION_BYTES_MAX + 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    int err = errno;
    close(fd);
    errno = err;
    if (!ok || n < 0)
        return NULL;
    if (len > DEFINITION_BYTES_MAX) {
        errno = EFBIG;
        return NULL;
    }
    text[len] = '\0';
    return g_steal_pointer(&text);
}

bool definition_not_found(const char *name, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                      "%s: no machine of that name is defined; lodge list shows those that are",
                      name);
}

Definition *definition_load(const char *name, GError **error)
{
    if (!registry_check_name(name, error))
        return NULL;
    g_autofree char *dir = registry_state_dir(name);
    g_autofree char *path = g_build_filename(dir, DEFINITION_FILE, NULL);
    g_autofree char *text = read_file(path);
    if (!text) {
        if (errno == ENOENT)
            (void)definition_not_found(name, error);
        else
            lodge_fail_errno(error, errno, "%s: cannot read the definition '%s'", name, path);
        return NULL;
    }
    Definition *d = definition_parse(text, error);
    if (!d)
        g_prefix_error(error, "%s: '%s': ", name, path);
    return d;
}

bool definition_save(const Definition *d, const char *dir, GError **error)
{
    g_autofree char *path = g_build_filename(dir, DEFINITION_FILE, NULL);
    g_autofree char *text = definition_format(d);
    g_autoptr(GError) why = NULL;
    if (strlen(text) > DEFINITION_BYTES_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "the definition has more than %u bytes",
                          DEFINITION_BYTES_MAX);
    if (!g_file_set_contents_full(path, text, -1,
                                  G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE,
                                  0600, &why))
        return lodge_fail(error, LODGE_ERROR_HOST, "%s", why->message);
    return true;
}
