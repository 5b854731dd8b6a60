// Runs models of an AOTInductor package on a tensor of ones, all with one set of weights.
#include <cstdio>
#include <stdexcept>

#include "package.h"

int main(int argc, char** argv) try {
  if (argc < 5) throw std::runtime_error("usage: package model.pt2 rows columns model [another model ...]");
  torch::NoGradGuard no_grad;
  const auto x = torch::ones({std::stoll(argv[2]), std::stoll(argv[3])});
  Weights weights;
  for (int i = 4; i < argc; ++i) {
    const auto model = load_model(argv[1], argv[i], weights);
    for (const auto& result : model->run({x})) {
      std::printf("%s", argv[i]);
      for (const auto size : result.sizes()) std::printf(" %lld", static_cast<long long>(size));
      std::printf(": %.4f\n", result.sum().item<double>());
    }
  }
  std::printf("%zu weights\n", weights.size());
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
