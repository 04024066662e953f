// SPDX-License-Identifier: Apache-2.0
//
// `bench space`: cells, targets, report.

import Foundation
import Rangeland

/// The cells of `bench space` and what they have to reach.
struct SpaceBench {
  var threadCounts: [Int]

  /// Every loop on every subject. One physical memory serves all, so that its pages are warm.
  func cells() throws -> [BenchCell] {
    let memory = try PhysicalMemory()
    var cells: [BenchCell] = []
    for threads in threadCounts {
      cells.append(
        BenchCell(name: "mmap1", subject: "kernel", threads: threads) { n in
          (0..<n).map { _ in KernelMmap1() }
        })
      let kernelMappings = (0..<threads).map { _ in KernelProtect() }
      cells.append(
        BenchCell(name: "protect", subject: "kernel", threads: threads) { _ in kernelMappings })
      cells.append(
        BenchCell(name: "fault1", subject: "kernel", threads: threads) { n in
          (0..<n).map { _ in KernelFault1() }
        })
      let pages = (0..<threads).map { _ in PagesToZero() }
      for (subject, isAscending) in [("zeroing", true), ("zeroing, descending", false)] {
        cells.append(
          BenchCell(name: "fault1", subject: subject, threads: threads) { _ in
            pages.map { ZeroPages(pages: $0, isAscending: isAscending) }
          })
      }
      cells.append(
        BenchCell(name: "spin", subject: "processor", threads: threads) { n in
          (0..<n).map { _ in Spin() }
        })
      for policy in LockPolicy.allCases {
        let space = try AddressSpace(policy: policy, placement: .arenas, memory: memory)
        let mappings = try (0..<threads).map { _ in
          try mapOnOwnThread(space)
        }
        cells.append(
          BenchCell(name: "mmap1", subject: policy.rawValue, threads: threads) { n in
            (0..<n).map { _ in SpaceMmap1(space: space) }
          })
        cells.append(
          BenchCell(name: "protect", subject: policy.rawValue, threads: threads) { _ in
            mappings.map { SpaceProtect(space, mapping: $0) }
          })
        cells.append(
          BenchCell(name: "fault1", subject: policy.rawValue, threads: threads) { n in
            (0..<n).map { _ in SpaceFault1(space: space) }
          })
      }
      let linux = try AddressSpace(policy: .ranged, placement: .linux, memory: memory)
      cells.append(
        BenchCell(name: "mmap1", subject: "ranged, linux placement", threads: threads) { n in
          (0..<n).map { _ in SpaceMmap1(space: linux) }
        })
    }
    return cells + ManyAreas.cells(threadCounts)
  }

  /// A 128 MiB mapping made by a thread of its own, so that each lies in an arena of its own even when
  /// arenas belong to threads: mapped far apart at fixed addresses.
  private func mapOnOwnThread(_ space: AddressSpace) throws -> Address {
    let taken = space.mappings().count
    let address = 0x2000_0000_0000 + UInt64(taken) * (64 << 30)
    return try space.map(
      length: SpaceLoop.bytes, at: .fixedNoReplace(address), protection: [.read, .write])
  }

  /// The figures, from the results.
  func targets(_ results: [BenchResult]) -> [BenchTarget] {
    func median(_ name: String, _ subject: String, _ threads: Int) -> Double? {
      results.first { $0.name == name && $0.subject == subject && $0.threads == threads }?
        .medianNanoseconds
    }
    var targets: [BenchTarget] = []
    func atLeast(_ name: String, _ required: Double, _ measured: Double?) {
      guard let measured else { return }
      targets.append(
        BenchTarget(name: name, required: required, measured: measured, met: measured >= required))
    }
    func ratio(_ a: Double?, _ b: Double?) -> Double? {
      guard let a, let b else { return nil }
      return a / b
    }
    atLeast(
      "mmap1, 1 thread: ranged against kernel, at least", 5,
      ratio(median("mmap1", "kernel", 1), median("mmap1", "ranged", 1)))
    atLeast(
      "protect, 1 thread: ranged against kernel, at least", 3,
      ratio(median("protect", "kernel", 1), median("protect", "ranged", 1)))
    if let cost = ratio(median("fault1", "ranged", 1), median("fault1", "zeroing", 1)) {
      targets.append(
        BenchTarget(
          name: "fault1, 1 thread: ranged against zeroing the pages, at most", required: 2,
          measured: cost, met: cost <= 2))
    }
    for loop in ["mmap1", "protect"] {
      atLeast(
        "\(loop), 2 threads against 1: ranged, arenas, at least", 1.7,
        ratio(median(loop, "ranged", 1), median(loop, "ranged", 2)).map { $0 * 2 })
    }
    return targets
  }
}
