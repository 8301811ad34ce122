# zeta_build_options: how zeta's own translation units are compiled. Never exported: who includes the headers keeps
# their own flags.

add_library(zeta_build_options INTERFACE)

# -march stays the platform's baseline; wider vector units are chosen at run time.
target_compile_options(
  zeta_build_options
  INTERFACE -Wall
            -Wextra
            -Wshadow
            -Wconversion
            $<$<BOOL:${ZETA_WARNINGS_AS_ERRORS}>:-Werror>
            "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=."
            "-ffile-prefix-map=${CMAKE_BINARY_DIR}=build")

if(ZETA_SANITIZER)
  set(zeta_sanitizers address undefined address,undefined thread)
  if(NOT ZETA_SANITIZER IN_LIST zeta_sanitizers)
    string(JOIN ", " zeta_sanitizers ${zeta_sanitizers})
    message(FATAL_ERROR "ZETA_SANITIZER is '${ZETA_SANITIZER}'; it can be one of: ${zeta_sanitizers}.")
  endif()
  # -O1 compiles in half the time of -O2. Instrumented code defeats g++'s analysis of what is initialised, and of
  # which allocation a deletion belongs to; the plain build keeps those warnings.
  target_compile_options(zeta_build_options INTERFACE -fsanitize=${ZETA_SANITIZER} -fno-sanitize-recover=all -O1
                                                      -fno-omit-frame-pointer -Wno-maybe-uninitialized
                                                      -Wno-mismatched-new-delete)
  target_link_options(zeta_build_options INTERFACE -fsanitize=${ZETA_SANITIZER})
endif()

# zeta_describe_build(TARGET SOURCE): tells SOURCE the version and the flags, without any path of the building machine.
function(zeta_describe_build target source)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" config)
  string(JOIN " " flags ${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${config}} -std=c++20 -ffp-contract=off)
  string(REGEX REPLACE "[^ ]*/[^ ]*" "" flags "${flags}")
  string(REGEX REPLACE " +" " " flags "${flags}")
  string(STRIP "${flags}" flags)
  set_property(
    SOURCE "${source}"
    APPEND
    PROPERTY COMPILE_DEFINITIONS "ZETA_VERSION=\"${PROJECT_VERSION}\"" "ZETA_BUILD_FLAGS=\"${flags}\""
             "ZETA_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"")
  # pybind11's headers may lie in a temporary environment; their path must not reach the binary either.
  if(pybind11_INCLUDE_DIRS)
    list(GET pybind11_INCLUDE_DIRS 0 pybind11_include)
    target_compile_options(${target} PRIVATE "-ffile-prefix-map=${pybind11_include}=pybind11")
  endif()
endfunction()
