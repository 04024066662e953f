// SPDX-License-Identifier: Apache-2.0
//
// A list too long to be held twice: it grows without a copy, and what has been used of it can be given back.
//
// Mechanism: one block of memory. Of large blocks the kernel moves the pages when they grow; pages that are done with
//   go back to it while the rest is still used.

import Glibc

/// A list by reference, of elements that are plain bytes. For one thread.
final class LargeList<Element: BitwiseCopyable> {
  private var base: UnsafeMutablePointer<Element>?
  private(set) var count = 0
  private var capacity = 0
  /// Bytes from the start that were given back.
  private var discarded = 0

  init() {}

  deinit { free(base) }

  var indices: Range<Int> { 0..<count }

  func append(_ element: Element) {
    if count == capacity { grow() }
    (base.unsafelyUnwrapped + count).initialize(to: element)
    count += 1
  }

  private func grow() {
    capacity = max(64, capacity + capacity / 2)
    guard let memory = realloc(base, capacity * MemoryLayout<Element>.stride) else {
      fatalError(
        "no memory for a list of \(capacity) elements of \(MemoryLayout<Element>.stride) bytes")
    }
    base = memory.bindMemory(to: Element.self, capacity: capacity)
  }

  subscript(index: Int) -> Element {
    get {
      precondition(index >= 0 && index < count, "no such element")
      return base.unsafelyUnwrapped[index]
    }
    set {
      precondition(index >= 0 && index < count, "no such element")
      base.unsafelyUnwrapped[index] = newValue
    }
  }

  /// The elements in their place: for looks at all of them, and for sorting.
  var elements: UnsafeMutableBufferPointer<Element> {
    UnsafeMutableBufferPointer(start: base, count: count)
  }

  /// Keeps the elements for which `isKept` holds, with `first` before them.
  func replace(first: [Element], keeping isKept: (Element) -> Bool) {
    let kept = LargeList()
    for element in first { kept.append(element) }
    for element in elements where isKept(element) { kept.append(element) }
    swap(&base, &kept.base)
    swap(&count, &kept.count)
    swap(&capacity, &kept.capacity)
    discarded = 0
  }

  /// The elements before `index` are not looked at again: what they take is given back, now and then.
  @inline(__always)
  func discard(before index: Int) {
    if index & 0x3fff == 0 { discardPages(before: index) }
  }

  @inline(never)
  private func discardPages(before index: Int) {
    guard let base else { return }
    let start = UInt(bitPattern: base)
    // Whole pages inside the block only: what is before the first one is not ours.
    let first = max((start + 4095) & ~4095, (start + UInt(discarded)) & ~4095)
    let end = (start + UInt(index * MemoryLayout<Element>.stride)) & ~4095
    guard end > first, let address = UnsafeMutableRawPointer(bitPattern: first) else { return }
    _ = madvise(address, Int(end - first), MADV_DONTNEED)
    discarded = Int(end - start)
  }

  func removeAll() {
    free(base)
    (base, count, capacity, discarded) = (nil, 0, 0, 0)
  }
}
