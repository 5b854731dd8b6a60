// Continues a text with the exported decoder: two methods that share a cache, and no Python.
#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

int main(int argc, char** argv) try {
  if (argc < 4) throw std::runtime_error("usage: decode decoder.pt steps word...");
  torch::NoGradGuard no_grad;
  auto decoder = torch::jit::load(argv[1]);
  const int64_t steps = std::atoll(argv[2]);
  std::vector<int64_t> prompt;
  for (int i = 3; i < argc; ++i) prompt.push_back(std::atoll(argv[i]));
  auto logits = decoder.get_method("prefill")({torch::tensor(prompt)}).toTensor();
  for (int64_t step = 0; step < steps; ++step) {
    const auto word = logits.argmax().item<int64_t>();
    std::printf("%lld %.6f\n", static_cast<long long>(word), logits.max().item<double>());
    logits = decoder.get_method("decode")({torch::tensor({word})}).toTensor();
  }
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
