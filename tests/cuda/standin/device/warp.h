// Barriers and warp operations. Each use in a kernel's text gets a number that increases with its place, by which the
// driver decides which lanes take part together (blocks.cpp).
#pragma once

namespace standin {

constexpr int WARP = 32;

// Waits until the lanes of this operation have arrived and `Operation::act` was called on all of them. An operation is
// a struct on each lane's stack with a static `act(Operation *lanes[32])`; absent lanes are null.
template <class Operation> void collective(unsigned site, Operation &mine) {
    machine->sync_warp(site, &mine, [](void *const arguments[WARP]) {
        Operation *lanes[WARP];
        for (int i = 0; i < WARP; i++) lanes[i] = static_cast<Operation *>(arguments[i]);
        Operation::act(lanes);
    });
}

struct Arrival {
    static void act(Arrival **) {}
};

// A shuffle. The value of a lane that does not take part is undefined on a GPU and has all bits set here.
template <class T> struct Shuffle {
    T value;
    int source;
    T result;
    static void act(Shuffle **lanes) {
        for (int i = 0; i < WARP; i++) {
            if (!lanes[i]) continue;
            const Shuffle *from = lanes[lanes[i]->source];
            if (from) lanes[i]->result = from->value;
            else memset(static_cast<void *>(&lanes[i]->result), 0xff, sizeof(T));
        }
    }
};

template <class T> T shuffle(unsigned site, T value, int source) {
    Shuffle<T> mine{value, source, value};
    collective(site, mine);
    return mine.result;
}

// The four forms differ in the source. Beyond the segment of `width` lanes, a lane reads its own value.
template <class T> T shuffle_index(unsigned site, unsigned, T value, int source, int width = WARP) {
    const int lane = machine->lane;
    return shuffle(site, value, lane / width * width + (source & (width - 1)));
}
template <class T> T shuffle_up(unsigned site, unsigned, T value, unsigned delta, int width = WARP) {
    const int lane = machine->lane, source = lane - int(delta);
    return shuffle(site, value, source < lane / width * width ? lane : source);
}
template <class T> T shuffle_down(unsigned site, unsigned, T value, unsigned delta, int width = WARP) {
    const int lane = machine->lane, source = lane + int(delta);
    return shuffle(site, value, source >= lane / width * width + width ? lane : source);
}
template <class T> T shuffle_xor(unsigned site, unsigned, T value, int mask, int width = WARP) {
    const int lane = machine->lane, source = lane ^ mask;
    return shuffle(site, value, source >= lane / width * width + width ? lane : source);
}

struct Vote {
    bool predicate;
    unsigned votes, voters;
    static void act(Vote **lanes) {
        unsigned votes = 0, voters = 0;
        for (int i = 0; i < WARP; i++) {
            if (!lanes[i]) continue;
            voters |= 1u << i;
            if (lanes[i]->predicate) votes |= 1u << i;
        }
        for (int i = 0; i < WARP; i++)
            if (lanes[i]) lanes[i]->votes = votes, lanes[i]->voters = voters;
    }
};

inline Vote vote(unsigned site, bool predicate) {
    Vote mine{predicate, 0, 0};
    collective(site, mine);
    return mine;
}
inline unsigned ballot(unsigned site, unsigned, bool predicate) { return vote(site, predicate).votes; }
inline int any(unsigned site, unsigned, bool predicate) { return vote(site, predicate).votes != 0; }
inline int all(unsigned site, unsigned, bool predicate) {
    const Vote result = vote(site, predicate);
    return result.votes == result.voters;
}
inline void sync_warp(unsigned site, unsigned = ~0u) {
    Arrival mine;
    collective(site, mine);
}

}

#define __syncthreads() (standin::machine->sync_block(__COUNTER__))
#define __syncwarp(...) standin::sync_warp(__COUNTER__, ##__VA_ARGS__)
#define __shfl_sync(...) standin::shuffle_index(__COUNTER__, __VA_ARGS__)
#define __shfl_up_sync(...) standin::shuffle_up(__COUNTER__, __VA_ARGS__)
#define __shfl_down_sync(...) standin::shuffle_down(__COUNTER__, __VA_ARGS__)
#define __shfl_xor_sync(...) standin::shuffle_xor(__COUNTER__, __VA_ARGS__)
#define __ballot_sync(...) standin::ballot(__COUNTER__, __VA_ARGS__)
#define __any_sync(...) standin::any(__COUNTER__, __VA_ARGS__)
#define __all_sync(...) standin::all(__COUNTER__, __VA_ARGS__)
// cubecl passes it on as the mask of the operations above, which ignore masks.
static inline unsigned __activemask() { return ~0u; }
