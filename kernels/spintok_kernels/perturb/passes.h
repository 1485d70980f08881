// The passes of perturb.cpp, compiled once for each instruction set.

namespace SPINTOK_ISA {
namespace {

#include "../simd.h"

#include "pitch.h"

#include "grains.h"

#include "cascade.h"

}  // namespace
}  // namespace SPINTOK_ISA
