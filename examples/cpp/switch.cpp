// Finds faces with the file of all flags and methods, one combination at a time.
#include <torch/script.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include "picture.h"

int main(int argc, char** argv) try {
  if (argc != 5) throw std::runtime_error("usage: switch faces.pt photo.ppm landmarks|boxes fast|full");
  torch::NoGradGuard no_grad;
  auto detector = torch::jit::load(argv[1]);
  const auto image = read_ppm(argv[2]);
  const std::string mode = argv[4];

  const auto picture = (image.to(torch::kFloat) - 127.5) * 0.0078125;
  const auto candidates = detector.get_method("propose")({picture, mode}).toTensor();
  const auto refined = detector.get_method("refine")({picture, candidates}).toTensor();
  std::printf("%lld candidates, %lld refined\n", static_cast<long long>(candidates.size(0)), static_cast<long long>(refined.size(0)));

  // The results differ with the flags, so they come by name.
  const auto faces = detector.forward({image, std::string(argv[3]) == "landmarks", mode}).toGenericDict();
  const auto boxes = faces.at("result.boxes").toTensor(), scores = faces.at("result.scores").toTensor();
  for (int64_t i = 0; i < boxes.size(0); ++i) {
    std::printf("%.4f ", scores[i].item<double>());
    for (int64_t edge = 0; edge < 4; ++edge) std::printf(" %.1f", boxes[i][edge].item<double>());
    std::printf("\n");
  }
  if (faces.contains("result.landmarks"))
    std::printf("%lld landmarks\n", static_cast<long long>(faces.at("result.landmarks").toTensor().numel() / 2));
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
