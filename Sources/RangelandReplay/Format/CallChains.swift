// SPDX-License-Identifier: Apache-2.0
//
// The call chains of a recording: through which functions a thread came to ask for `mmap_lock`.
//
// Guarantee: a chain has at least one frame. An import puts each chain, and each function, into the table once.
// Cost: a chain 8 bytes and 4 more a frame; every function once.

/// Chains of functions, each numbered from 0.
public struct CallChains: Equatable, Sendable {
  /// What a function is called that has no symbol.
  public static let unknown = "[unknown]"

  /// One function on a chain.
  public struct Frame: Hashable, Sendable {
    /// Its name; `[unknown]` where there is no symbol.
    public var function: String
    /// The program, library or kernel module that it is in, without folders.
    public var module: String
    /// Whether it is the kernel's.
    public var isKernel: Bool

    public init(function: String, module: String, isKernel: Bool) {
      self.function = function
      self.module = module
      self.isKernel = isKernel
    }
  }

  /// Every function that is on a chain.
  public private(set) var frames: [Frame] = []
  /// The numbers of the frames of all chains, one chain after the other.
  private var numbers: [UInt32] = []
  /// Where each chain ends in `numbers`.
  private var ends: [Int] = []

  public init() {}

  /// How many chains there are.
  public var count: Int { ends.count }
  public var isEmpty: Bool { ends.isEmpty }

  /// The functions of chain `index`, the innermost first.
  public func chain(_ index: Int) -> [Frame] { frameNumbers(index).map { frames[Int($0)] } }

  /// The same, as indices into `frames`.
  func frameNumbers(_ index: Int) -> ArraySlice<UInt32> {
    numbers[(index == 0 ? 0 : ends[index - 1])..<ends[index]]
  }

  /// Adds a function.
  mutating func append(_ frame: Frame) { frames.append(frame) }

  /// Adds a chain, which is not empty, of frames that are there.
  mutating func append(chain: some Collection<UInt32>) {
    numbers.append(contentsOf: chain)
    ends.append(numbers.count)
  }
}

extension Substring {
  /// Where the parentheses open that close at the end; nil if none do.
  var openingOfLastParentheses: Index? {
    guard last == ")" else { return nil }
    var depth = 0
    var index = endIndex
    while index > startIndex {
      index = self.index(before: index)
      if self[index] == ")" { depth += 1 }
      if self[index] == "(" { depth -= 1 }
      if depth == 0 { return index }
    }
    return nil
  }
}
