// Loads a model of an AOTInductor package, with the weights that it shares with the package's other models.
#pragma once

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

// Weights by record, and so once for all models that are loaded with the same one of these. Keep it as long as they run.
using Weights = std::map<std::string, at::Tensor>;

inline std::vector<int64_t> read_numbers(const std::string& text) {
  std::vector<int64_t> numbers;
  std::stringstream stream(text);
  for (std::string each; std::getline(stream, each, ',');) numbers.push_back(std::stoll(each));
  return numbers;
}

inline std::unique_ptr<torch::inductor::AOTIModelPackageLoader> load_model(
    const std::string& path, const std::string& name, Weights& weights) {
  auto model = std::make_unique<torch::inductor::AOTIModelPackageLoader>(path, name);
  caffe2::serialize::PyTorchStreamReader reader(path);
  const auto config = "data/aotinductor/" + name + "/weights_config.json";
  if (!reader.hasRecord(config)) return model;  // of a package of one model they are in its code
  const auto [bytes, size] = reader.getRecord(config);
  const std::string text(static_cast<const char*>(bytes.get()), size);

  // "name": ["record", [sizes], [strides], offset]
  const std::regex row(R"re("([^"]+)": \["([^"]+)", \[([^\]]*)\], \[([^\]]*)\], (\d+)\])re");
  std::unordered_map<std::string, at::Tensor> constants;
  for (std::sregex_iterator it(text.begin(), text.end(), row), end; it != end; ++it) {
    const auto record = (*it)[2].str();
    if (!weights.count(record)) {
      const auto [data, count] = reader.getRecord("data/weights/" + record);
      const auto* first = static_cast<const char*>(data.get());
      weights[record] = torch::pickle_load(std::vector<char>(first, first + count)).toTensor();
    }
    constants[(*it)[1].str()] =
        weights[record].as_strided(read_numbers((*it)[3]), read_numbers((*it)[4]), std::stoll((*it)[5]));
  }
  model->load_constants(constants, /*use_inactive=*/false, /*check_full_update=*/true, /*user_managed=*/true);
  return model;
}
