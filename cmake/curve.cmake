# How a directory of native/ declares what it builds. DEPS are short names of our own libraries
# (`base` means curve_base) or targets with a namespace (PkgConfig::URING, Threads::Threads).

# Adds a directory if its owner has written a CMakeLists.txt.
function(curve_add_directory directory)
  if(EXISTS "${CMAKE_SOURCE_DIR}/${directory}/CMakeLists.txt")
    add_subdirectory(${directory})
  endif()
endfunction()

function(_curve_link target visibility)
  foreach(dependency IN LISTS ARGN)
    if(dependency MATCHES "^curve_" OR NOT dependency MATCHES "^[a-z][a-z0-9_]*$")
      target_link_libraries(${target} ${visibility} ${dependency})
    else()
      target_link_libraries(${target} ${visibility} curve_${dependency})
    endif()
  endforeach()
endfunction()

# Whether all sources of a target are there. A target without one of its sources is left out with a
# warning, so that a checkout in which somebody is at work builds everywhere else; CURVE_COMPLETE
# (tools/test, packages) makes it an error.
function(_curve_sources_exist result name)
  set(${result} TRUE PARENT_SCOPE)
  foreach(source IN LISTS ARGN)
    if(NOT IS_ABSOLUTE "${source}" AND NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${source}")
      if(CURVE_COMPLETE)
        message(FATAL_ERROR "${name}: no file ${CMAKE_CURRENT_SOURCE_DIR}/${source}")
      endif()
      message(WARNING "${name} is left out: no file ${CMAKE_CURRENT_SOURCE_DIR}/${source}")
      set(${result} FALSE PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# curve_library(name SOURCES a.cc ... DEPS base ...): static library curve_<name>; without SOURCES a
# header library.
function(curve_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  _curve_sources_exist(complete curve_${name} ${ARG_SOURCES})
  if(NOT complete)
    return()
  endif()
  if(ARG_SOURCES)
    add_library(curve_${name} STATIC ${ARG_SOURCES})
    target_compile_options(curve_${name} PRIVATE ${CURVE_WARNINGS})
    set(visibility PUBLIC)
  else()
    add_library(curve_${name} INTERFACE)
    set(visibility INTERFACE)
  endif()
  target_include_directories(curve_${name} ${visibility} "${CMAKE_SOURCE_DIR}")
  _curve_link(curve_${name} ${visibility} ${ARG_DEPS})
endfunction()

# curve_executable(name SOURCES ... DEPS ...): a program; it picks the io implementation (io_uring
# or io_sim) in DEPS.
function(curve_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  _curve_sources_exist(complete ${name} ${ARG_SOURCES})
  if(NOT complete)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${CURVE_WARNINGS})
  _curve_link(${name} PRIVATE ${ARG_DEPS} Threads::Threads)
endfunction()

# curve_test(name SOURCES ... DEPS ... [TIMEOUT seconds]): a GoogleTest program, each of its tests
# known to ctest. Nothing happens where tests are not built, so that callers need no condition.
function(curve_test name)
  if(NOT CURVE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(CURVE_SANITIZE)
    math(EXPR ARG_TIMEOUT "5 * ${ARG_TIMEOUT}")
  endif()
  curve_executable(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS} GTest::gtest_main)
  if(NOT TARGET ${name})
    return()
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST
                       WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
