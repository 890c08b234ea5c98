// Translation of the CUDA C++ that cubecl writes into C++ for g++.
#pragma once
#include <string>

struct Translation {
    std::string kernel;   // name of the entry point; empty if there is none
    std::string source;
    bool waits;           // whether it has an operation in which threads wait for each other
};

// Changes what macros cannot: inline PTX becomes a call, dynamic shared memory a pointer, and the definitions of 64-bit
// integers, which differ from those of the host's headers, are removed. An entry point for the driver is appended.
Translation translate(const std::string &cuda);
