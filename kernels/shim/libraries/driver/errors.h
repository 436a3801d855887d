// Names of results.
#pragma once
#include "state.h"

CALL cuGetErrorName(int code, const char** text) {
  static const std::map<int, const char*> names = {
      {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},       {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
      {kNoBinary, "CUDA_ERROR_NO_BINARY_FOR_GPU"},      {kEcc, "CUDA_ERROR_ECC_UNCORRECTABLE"},
      {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},  {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
      {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},      {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
  };
  auto found = names.find(code);
  *text = found == names.end() ? "CUDA_ERROR" : found->second;
  return kSuccess;
}
CALL cuGetErrorString(int code, const char** text) {
  static const std::map<int, const char*> texts = {
      {kOutOfMemory, "out of memory"},
      {kNoBinary, "no kernel image is available for execution on the device"},
      {kEcc, "uncorrectable ECC error encountered"},
      {kIllegalAddress, "an illegal memory access was encountered"},
      {kLaunchFailed, "unspecified launch failure"},
  };
  auto found = texts.find(code);
  *text = found == texts.end() ? "something else" : found->second;
  return kSuccess;
}
