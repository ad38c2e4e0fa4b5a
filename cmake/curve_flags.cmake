# Compiler flags of every native target: build type, warnings, instruction set, sanitizers, ccache.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()

if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(CCACHE_PROGRAM ccache)
  if(CCACHE_PROGRAM)
    # Not hashing the build directory lets the package build reuse the objects of the developer
    # build.
    set(launcher "${CMAKE_COMMAND}" -E env CCACHE_NOHASHDIR=1 "${CCACHE_PROGRAM}")
    set(CMAKE_C_COMPILER_LAUNCHER "${launcher}")
    set(CMAKE_CXX_COMPILER_LAUNCHER "${launcher}")
  endif()
endif()

# Assertions stay on in every build: a broken invariant stops the process (no -DNDEBUG).
foreach(language IN ITEMS C CXX)
  set(CMAKE_${language}_FLAGS_RELWITHDEBINFO "-O2 -g")
  set(CMAKE_${language}_FLAGS_RELEASE "-O2")
  set(CMAKE_${language}_FLAGS_DEBUG "-O0 -g")
endforeach()

add_compile_options(-fno-omit-frame-pointer)
# A seed of the simulation is the same run on every machine, also where a processor could multiply
# and add in one step with one rounding.
add_compile_options(-ffp-contract=off)
# Only the baseline that every x86-64 server of the last decade has; faster paths (CRC32C) are
# chosen at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  add_compile_options(-march=x86-64-v2)
endif()

# Warnings of our own targets; curve_library() and its like add them, generated code is left alone.
set(CURVE_WARNINGS -Wall -Wextra)
if(CURVE_WERROR)
  list(APPEND CURVE_WARNINGS -Werror)
endif()

if(CURVE_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
  add_compile_options(-fsanitize=${CURVE_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${CURVE_SANITIZE})
  add_compile_definitions(CURVE_SANITIZED=1)
endif()

# Static libraries are linked as one group: libraries above the io seam leave its symbols
# unresolved, and the implementation (curve_io_uring or curve_io_sim) may stand anywhere on the link
# line.
set(CMAKE_CXX_LINK_EXECUTABLE
    "<CMAKE_CXX_COMPILER> <FLAGS> <CMAKE_CXX_LINK_FLAGS> <LINK_FLAGS> <OBJECTS> -o <TARGET> -Wl,--start-group <LINK_LIBRARIES> -Wl,--end-group")
set(CMAKE_CXX_CREATE_SHARED_MODULE
    "<CMAKE_CXX_COMPILER> <CMAKE_SHARED_LIBRARY_CXX_FLAGS> <LANGUAGE_COMPILE_FLAGS> <LINK_FLAGS> <CMAKE_SHARED_LIBRARY_CREATE_CXX_FLAGS> <SONAME_FLAG><TARGET_SONAME> -o <TARGET> <OBJECTS> -Wl,--start-group <LINK_LIBRARIES> -Wl,--end-group")

# The deliberate bugs of native/base/mutant.h: only tools/sim --mutants builds with them, in a
# directory of its own.
option(CURVE_MUTANTS "Compile the simulation's deliberate bugs in" OFF)
if(CURVE_MUTANTS)
  add_compile_definitions(CURVE_MUTANTS=1)
endif()
