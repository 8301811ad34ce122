# Installs the headers and a CMake package. In a wheel both lie inside the Python package (zeta.get_include(),
# zeta.get_cmake_dir()); a plain `cmake --install` uses the usual places.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

function(zeta_install_core target)
  if(SKBUILD)
    set(include_dir zeta/include)
    set(cmake_dir zeta/cmake)
  else()
    set(include_dir ${CMAKE_INSTALL_INCLUDEDIR})
    set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/zeta)
  endif()
  install(TARGETS ${target} EXPORT zetaTargets FILE_SET HEADERS DESTINATION ${include_dir} COMPONENT core)
  install(EXPORT zetaTargets NAMESPACE zeta:: FILE zetaConfig.cmake DESTINATION ${cmake_dir} COMPONENT core)
  write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/zetaConfigVersion.cmake"
                                   COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/zetaConfigVersion.cmake" DESTINATION ${cmake_dir} COMPONENT core)
endfunction()
