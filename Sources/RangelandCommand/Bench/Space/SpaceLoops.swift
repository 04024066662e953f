// SPDX-License-Identifier: Apache-2.0
//
// The loops of `bench space`, on the kernel and on an AddressSpace. Named after will-it-scale's.

import CRangeland
import Glibc
import Rangeland
import SystemPackage

/// The sizes that all subjects share.
enum SpaceLoop {
  /// The mapping that every loop works on.
  static let bytes: UInt64 = 128 << 20
  static let pages = Int(bytes / Address.pageSize)
  /// Operations between two looks at the clock, for loops of under a microsecond.
  static let batch = 64
}

/// A system call of the benchmark that the kernel refused.
struct KernelRefusal: Error, CustomStringConvertible {
  var call: String
  var code: Int32
  var description: String { "\(call) failed: \(String(cString: strerror(code)))" }
}

private func kernelMap() -> UInt {
  let result = rl_kernel_mmap(Int(SpaceLoop.bytes))
  precondition(
    result > 0, "bench: mmap of 128 MiB failed: \(String(cString: strerror(Int32(-result))))")
  return UInt(result)
}

// MARK: - mmap1: map 128 MiB, unmap it

struct KernelMmap1: BenchBody {
  @inline(never)
  func runBatch() -> Int {
    for _ in 0..<SpaceLoop.batch {
      _ = rl_kernel_munmap(kernelMap(), Int(SpaceLoop.bytes))
    }
    return SpaceLoop.batch
  }
}

struct SpaceMmap1: BenchBody {
  let space: AddressSpace

  @inline(never)
  func runBatch() -> Int {
    for _ in 0..<SpaceLoop.batch {
      let address = must { () throws(Errno) in
        try space.map(length: SpaceLoop.bytes, protection: [.read, .write])
      }
      must { () throws(Errno) in try space.unmap(at: address, length: SpaceLoop.bytes) }
    }
    return SpaceLoop.batch
  }
}

// MARK: - protect: flip the page in the middle of a large mapping

struct KernelProtect: BenchBody {
  let middle: UInt

  init() { middle = kernelMap() + UInt(SpaceLoop.bytes / 2) }

  @inline(never)
  func runBatch() -> Int {
    for i in 0..<SpaceLoop.batch {
      _ = rl_kernel_mprotect(middle, Int(Address.pageSize), Int32(i & 1))
    }
    return SpaceLoop.batch
  }
}

struct SpaceProtect: BenchBody {
  let space: AddressSpace
  let middle: Address

  init(_ space: AddressSpace, mapping: Address) {
    self.space = space
    middle = mapping + SpaceLoop.bytes / 2
  }

  @inline(never)
  func runBatch() -> Int {
    for i in 0..<SpaceLoop.batch {
      must { () throws(Errno) in
        try space.protect(
          at: middle, length: Address.pageSize, i & 1 == 0 ? .read : [.read, .write])
      }
    }
    return SpaceLoop.batch
  }
}

// MARK: - fault1: map 128 MiB, write a byte to every page, unmap it

struct KernelFault1: BenchBody {
  @inline(never)
  func runBatch() -> Int {
    let base = kernelMap()
    let bytes = UnsafeMutablePointer<UInt8>(bitPattern: base)!
    var offset = 0
    while offset < Int(SpaceLoop.bytes) {
      bytes[offset] = 1
      offset += Int(Address.pageSize)
    }
    _ = rl_kernel_munmap(base, Int(SpaceLoop.bytes))
    return SpaceLoop.pages
  }
}

struct SpaceFault1: BenchBody {
  let space: AddressSpace

  @inline(never)
  func runBatch() -> Int {
    let base = must { () throws(Errno) in
      try space.map(length: SpaceLoop.bytes, protection: [.read, .write])
    }
    var address = base
    while address < base + SpaceLoop.bytes {
      must { () throws(AccessFault) in try space.store(UInt8(1), at: address) }
      address += Address.pageSize
    }
    must { () throws(Errno) in try space.unmap(at: base, length: SpaceLoop.bytes) }
    return SpaceLoop.pages
  }
}

/// Memory for `ZeroPages`, and the two orders in which its pages are filled.
final class PagesToZero: Sendable {
  // Each thread of a run has its own instance, and runs end before the next begin: nothing is shared.
  nonisolated(unsafe) let memory: UnsafeMutableRawPointer
  nonisolated(unsafe) let ascending: UnsafeMutablePointer<UInt32>
  nonisolated(unsafe) let descending: UnsafeMutablePointer<UInt32>

  init() {
    memory = rl_reserve(Int(SpaceLoop.bytes))!
    madvise(memory, Int(SpaceLoop.bytes), MADV_HUGEPAGE)
    ascending = .allocate(capacity: SpaceLoop.pages)
    descending = .allocate(capacity: SpaceLoop.pages)
    for page in 0..<SpaceLoop.pages {
      ascending[page] = UInt32(page)
      descending[page] = UInt32(SpaceLoop.pages - 1 - page)
    }
  }

  deinit {
    _ = rl_release(memory, Int(SpaceLoop.bytes))
    ascending.deallocate()
    descending.deallocate()
  }
}

/// The bound of fault1: what filling the pages with zeros alone costs, page by page as an allocator does. In
/// descending order it shows what the order in which an allocator gives pages out is worth.
struct ZeroPages: BenchBody {
  let pages: PagesToZero
  let isAscending: Bool

  @inline(never)
  func runBatch() -> Int {
    // From a table, so that the compiler does not make one fill of it all.
    let order = isAscending ? pages.ascending : pages.descending
    for i in 0..<SpaceLoop.pages { memset(pages.memory + Int(order[i]) << 12, 0, 4096) }
    return SpaceLoop.pages
  }
}

/// Benchmarks have no answer to a failure but to stop.
@inline(__always)
private func must<T, E: Error>(_ body: () throws(E) -> T) -> T {
  do {
    return try body()
  } catch {
    fatalError("bench: \(error)")
  }
}
