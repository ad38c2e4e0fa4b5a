# Cython modules of the Python package; used by curve_py/_native only, within the scikit-build-core
# build.

find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)

# curve_cython_module(name SOURCES name.pyx [more.cc ...] DEPS ...): the extension
# curve_py._native.<name>. Our static libraries are linked into it and stay private to it; DEPS
# names the io implementation, as for a program.
function(curve_cython_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  set(pyx ${ARG_SOURCES})
  list(FILTER pyx INCLUDE REGEX "\\.pyx$")
  list(FILTER ARG_SOURCES EXCLUDE REGEX "\\.pyx$")
  set(generated "${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp")
  add_custom_command(
    OUTPUT "${generated}"
    COMMAND Python::Interpreter -m cython --cplus -3 -M --fast-fail -Wextra -I "${CMAKE_SOURCE_DIR}"
            "${CMAKE_CURRENT_SOURCE_DIR}/${pyx}" --output-file "${generated}"
    DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${pyx}"
    DEPFILE "${generated}.dep"
    VERBATIM)
  python_add_library(${name} MODULE WITH_SOABI "${generated}" ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}")
  target_link_options(${name} PRIVATE -Wl,--exclude-libs,ALL)
  _curve_link(${name} PRIVATE ${ARG_DEPS} Threads::Threads)
  install(TARGETS ${name} DESTINATION curve_py/_native)
endfunction()
