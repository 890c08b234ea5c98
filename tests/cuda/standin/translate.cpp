// Translation of the CUDA C++ that cubecl writes into C++ for g++ (translate.h).
#include "translate.h"

#include <cctype>
#include <cstring>
#include <vector>

#include "abi.h"

namespace {

bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

size_t skip_spaces(const std::string &text, size_t at) {
    while (at < text.size() && isspace(static_cast<unsigned char>(text[at]))) at++;
    return at;
}

size_t end_of_word(const std::string &text, size_t at) {
    while (at < text.size() && is_word(text[at])) at++;
    return at;
}

// The position behind the bracket that closes the one at `at`; strings are skipped.
size_t behind_bracket(const std::string &text, size_t at) {
    int depth = 0;
    bool quoted = false;
    for (; at < text.size(); at++) {
        const char c = text[at];
        if (quoted) {
            if (c == '\\') at++;
            else if (c == '"') quoted = false;
        } else if (c == '"') quoted = true;
        else if (c == '(') depth++;
        else if (c == ')' && --depth == 0) return at + 1;
    }
    return std::string::npos;
}

// The name that follows `__global__` and its attributes.
std::string entry_point(const std::string &text) {
    size_t at = text.find("__global__");
    if (at == std::string::npos) return "";
    at += strlen("__global__");
    while (at < text.size()) {
        at = skip_spaces(text, at);
        const size_t end = end_of_word(text, at);
        if (end == at) return "";
        const std::string word = text.substr(at, end - at);
        const size_t next = skip_spaces(text, end);
        if (next >= text.size() || text[next] != '(') at = end;
        else if (word.rfind("__", 0) == 0) at = behind_bracket(text, next);   // __launch_bounds__(…)
        else return word;
    }
    return "";
}

// `ptx` begins with the first character behind the opening quote. The instruction's name as an identifier.
std::string instruction(const std::string &ptx) {
    size_t at = 0;
    while (at < ptx.size() && (ptx[at] == '{' || ptx[at] == ' ')) at++;
    std::string name;
    while (at < ptx.size() && ptx[at] != ' ' && ptx[at] != ';') {
        name += is_word(ptx[at]) ? ptx[at] : '_';
        at++;
    }
    return name;
}

// The expressions in brackets of `"=f"(a), "r"(b) : "memory"`: constraints are strings, clobbers have no expression.
std::vector<std::string> operands(const std::string &text) {
    std::vector<std::string> found;
    for (size_t at = 0; at < text.size();) {
        if (text[at] != '(') {
            at++;
            continue;
        }
        const size_t end = behind_bracket(text, at);
        found.push_back(text.substr(at + 1, end - at - 2));
        at = end;
    }
    return found;
}

// `asm volatile("op %0, %1;" : "=f"(a) : "f"(b));` becomes `standin::ptx::op(__COUNTER__, a, b);`.
std::string replace_ptx(const std::string &text) {
    std::string out;
    size_t from = 0;
    for (;;) {
        size_t at = text.find("asm", from);
        while (at != std::string::npos && ((at > 0 && is_word(text[at - 1])) || (is_word(text[at + 3]) || text[at + 3] == '.')))
            at = text.find("asm", at + 3);
        if (at == std::string::npos) return out + text.substr(from);
        size_t open = skip_spaces(text, at + 3);
        if (text.compare(open, 8, "volatile") == 0) open = skip_spaces(text, open + 8);
        const size_t quote = open < text.size() && text[open] == '(' ? skip_spaces(text, open + 1) : std::string::npos;
        if (quote == std::string::npos || quote >= text.size() || text[quote] != '"') {
            out += text.substr(from, at + 3 - from);
            from = at + 3;
            continue;
        }
        size_t close = quote + 1;
        while (text[close] != '"') close += text[close] == '\\' ? 2 : 1;
        const size_t end = behind_bracket(text, open);
        out += text.substr(from, at - from) + "standin::ptx::" + instruction(text.substr(quote + 1, close - quote - 1)) + "(__COUNTER__";
        for (const std::string &operand : operands(text.substr(close + 1, end - close - 2))) out += ", " + operand;
        out += ")";
        from = end;
    }
}

// `extern __shared__ __align__(16) char name[];` becomes `char *name = standin::machine->shared;`.
std::string replace_shared(const std::string &text) {
    const std::string start = "extern __shared__";
    std::string out;
    size_t from = 0;
    for (size_t at; (at = text.find(start, from)) != std::string::npos;) {
        const size_t bracket = text.find('[', at), end = text.find(';', at);
        size_t name = bracket;
        while (name > at && is_word(text[name - 1])) name--;
        out += text.substr(from, at - from) + "char *" + text.substr(name, bracket - name) + " = standin::machine->shared";
        from = end;
    }
    return out + text.substr(from);
}

std::string without(std::string text, const std::string &unwanted) {
    for (size_t at; (at = text.find(unwanted)) != std::string::npos;) text.erase(at, unwanted.size());
    return text;
}

bool has_waits(const std::string &text) {
    for (const char *name : {"__syncthreads", "__syncwarp", "_sync(", "mma", "ldmatrix", "stmatrix"})
        if (text.find(name) != std::string::npos) return true;
    return false;
}

}

Translation translate(const std::string &cuda) {
    Translation result{entry_point(cuda), cuda, has_waits(cuda)};
    result.source = without(result.source, "typedef unsigned long long int uint64_t;");
    result.source = without(result.source, "typedef signed long long int int64_t;");
    result.source = replace_ptx(replace_shared(result.source));
    result.source += std::string("\nSTANDIN_EXPORT void ") + STANDIN_ENTRY + "(void **parameters) { standin::call(" +
                     result.kernel + ", parameters); }\nSTANDIN_EXPORT const int " + STANDIN_WAITS + " = " +
                     (result.waits ? "1" : "0") + ";\n";
    return result;
}
