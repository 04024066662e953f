// SPDX-License-Identifier: Apache-2.0
//
// Everything that can be seen of a subject, to be compared with another that should have come to the same.

struct RecordedState: Sendable {
  private var mappings: [VerifyMapping] = []
  /// Present pages of private memory, and what they hold where they may be read.
  private var pages: [UInt64] = []
  private var hashes: [UInt64?] = []
  /// Pages of shared memory that are read. The judge has read them too, so that they say nothing about residency.
  private var sharedPages: [UInt64] = []
  private var sharedHashes: [UInt64?] = []
  private var sizes: VerifySizes

  /// - Parameter other: a state whose pages of shared memory are to be read; `nil` = those that are present.
  init(
    _ subject: any VerifySubject, windows: [KernelProcess.AddressPair],
    asIn other: RecordedState? = nil
  ) {
    sizes = subject.sizes()
    // The judge has read shared memory, which made it resident.
    sizes.residentShared = 0
    for window in windows {
      let mappings = subject.mappings(window.start, window.end)
      self.mappings += mappings
      var present = subject.presentPages(window.start, window.end)[...]
      for mapping in mappings {
        let count = present.prefix { $0 < mapping.end }.count
        if mapping.isShared {
          sharedPages += present.prefix(count)
        } else {
          pages += present.prefix(count)
        }
        present = present.dropFirst(count)
      }
      // What is present where nothing is mapped.
      pages += present
    }
    if let other { sharedPages = other.sharedPages }
    hashes = pages.map { subject.hash($0) }
    sharedHashes = sharedPages.map { subject.hash($0) }
  }

  /// How another state differs from this one; `nil` = not at all.
  func difference(_ other: RecordedState, _ index: Int) -> VerifyDifference? {
    func differs(_ what: String, _ expected: String, _ got: String) -> VerifyDifference {
      VerifyDifference(index: index, what: "together: \(what)", kernel: expected, subject: got)
    }
    if mappings != other.mappings {
      return differs("all mappings", list(mappings), list(other.mappings))
    }
    if pages != other.pages {
      let odd = Set(pages).symmetricDifference(other.pages).min() ?? 0
      return differs(
        "residency", "\(hex(odd)) \(pages.contains(odd))", "\(other.pages.contains(odd))")
    }
    let contents = zip(
      pages + sharedPages, zip(hashes + sharedHashes, other.hashes + other.sharedHashes))
    for (page, (expected, got)) in contents where expected != got {
      return differs(
        "contents", "\(hex(page)): \(expected.map(hex) ?? "not readable")",
        got.map(hex) ?? "not readable")
    }
    return sizes == other.sizes ? nil : differs("sizes", "\(sizes)", "\(other.sizes)")
  }
}

/// Mappings, one a line.
func list(_ mappings: [VerifyMapping]) -> String {
  mappings.map(\.description).joined(separator: "\n")
}
