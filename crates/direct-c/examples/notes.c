/*
 * Keeps a note in a file of a mounted volume: notes FILE TEXT
 *
 * Says how the file is reached and what the note was before, and reads it again.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lodefs_direct.h>

#define NOTE_SIZE 4096

static void check(const char *what, int result)
{
	if (result < 0) {
		fprintf(stderr, "notes: %s: %s\n", what, strerror(-result));
		exit(1);
	}
}

/* Opens the file, long enough for a note, with a block for it. */
static int open_file(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

	check(name, fd < 0 ? -errno : -posix_fallocate(fd, 0, NOTE_SIZE));
	return fd;
}

/* Maps it so that no fsync is needed, if that can be; else as it can be. */
static struct lodefs_mapping *map_file(int fd)
{
	struct lodefs_map_options options = {
		.size = NOTE_SIZE,
		.flags = LODEFS_MAP_WRITABLE | LODEFS_MAP_SYNC,
	};
	struct lodefs_mapping *mapping = NULL;
	int result = lodefs_map(fd, &options, &mapping);

	if (result == -EOPNOTSUPP) {
		options.flags = LODEFS_MAP_WRITABLE;
		result = lodefs_map(fd, &options, &mapping);
	}
	check("map", result);
	return mapping;
}

static void report(int fd, const struct lodefs_mapping *mapping)
{
	struct lodefs_dax_status status;
	int result = lodefs_dax_status(fd, &status);
	const char *kind = lodefs_mapping_kind(mapping) == LODEFS_DIRECT ? "direct" : "buffered";

	if (result == -ENOTTY) {
		printf("%s, not on a lodefs volume\n", kind);
		return;
	}
	check("status", result);
	printf("%s, flag %u, reason %u\n", kind, (unsigned)status.flag, (unsigned)status.reason);
}

/* What the file says by now. */
static void read_again(int fd)
{
	struct lodefs_file *file = NULL;
	char note[NOTE_SIZE] = "";

	check("open", lodefs_file_open(fd, &file));
	check("read", (int)lodefs_file_read(file, note, sizeof(note), 0));
	printf("after: %s\n", note);
	check("close", lodefs_file_close(&file));
}

int main(int argc, char **argv)
{
	struct lodefs_mapping *mapping;
	char *note;
	int fd;

	if (argc != 3 || strlen(argv[2]) >= NOTE_SIZE) {
		fprintf(stderr, "usage: notes FILE TEXT\n");
		return 2;
	}
	fd = open_file(argv[1]);
	mapping = map_file(fd);
	report(fd, mapping);

	note = lodefs_mapping_address(mapping);
	printf("before: %.*s\n", NOTE_SIZE, note);
	strcpy(note, argv[2]);
	check("persist", lodefs_persist(mapping, 0, strlen(note) + 1));
	check("sync", lodefs_sync(mapping));
	check("unmap", lodefs_unmap(&mapping));
	read_again(fd);
	close(fd);
	return 0;
}
