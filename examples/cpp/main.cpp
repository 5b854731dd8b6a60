// Finds the faces in a photograph with nothing but the exported file: no Python.
#include <torch/script.h>

#include <cstdio>
#include <stdexcept>

#include "picture.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: faces faces.pt photo.ppm");
  torch::NoGradGuard no_grad;
  auto detector = torch::jit::load(argv[1]);
  auto faces = detector.forward({read_ppm(argv[2])}).toTuple()->elements();
  auto boxes = faces[0].toTensor(), scores = faces[1].toTensor();
  for (int64_t i = 0; i < boxes.size(0); ++i) {
    std::printf("%.4f ", scores[i].item<double>());
    for (int64_t edge = 0; edge < 4; ++edge) std::printf(" %.1f", boxes[i][edge].item<double>());
    std::printf("\n");
  }
  if (boxes.size(0) == 0) std::printf("no faces\n");
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
