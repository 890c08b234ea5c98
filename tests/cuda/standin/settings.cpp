// Settings from the environment, and the log (settings.h).
#include "settings.h"

#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

namespace settings {

int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value && *value ? atoi(value) : otherwise;
}

std::string text(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

bool reverse_order() {
    static const bool reverse = text("STANDIN_ORDER") == "reverse";
    return reverse;
}

size_t memory_bytes() {
    static const size_t bytes = size_t(number("STANDIN_MEMORY", 8192)) << 20;
    return bytes;
}

}

void log_line(const std::string &line) {
    static const std::string path = settings::text("STANDIN_LOG");
    if (path.empty()) return;
    static const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (file < 0) return;
    const std::string whole = line + "\n";
    // A log that cannot be written is noticed by whoever counts its lines.
    if (write(file, whole.data(), whole.size()) < 0) return;
}
