// SPDX-License-Identifier: Apache-2.0
//
// `rangeland bench`: the product's own benchmark.

import ArgumentParser

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Measure address spaces beside the kernel, and locks beside their peers, interleaved.",
    subcommands: [BenchSpace.self, BenchLocks.self], defaultSubcommand: BenchSpace.self)
}
