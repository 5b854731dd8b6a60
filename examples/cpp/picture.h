// Reads a photograph.
#pragma once
#include <torch/script.h>

#include <fstream>
#include <stdexcept>
#include <string>

inline torch::Tensor read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t width = 0, height = 0, maximum = 0;
  file >> magic >> width >> height >> maximum;
  if (!file || magic != "P6" || maximum != 255) throw std::runtime_error(path + ": no readable binary PPM with 8 bits a channel");
  file.get();  // the one byte between header and pixels
  auto pixels = torch::empty({height, width, 3}, torch::kUInt8);
  if (!file.read(reinterpret_cast<char*>(pixels.data_ptr()), pixels.numel()))
    throw std::runtime_error(path + ": fewer pixels than its header says");
  return pixels.permute({2, 0, 1}).contiguous();
}
