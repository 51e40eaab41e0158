/// What the trees that bear on a subject say of one thing: the ceilings', the outermost first, and the subject's own, last.
///
/// Something is allowed only if every layer allows it. There is no way to get at one layer alone, so that no judge can
/// forget another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers<T> {
    ceilings: Vec<T>,
    own: T,
}

impl<T> Layers<T> {
    pub(crate) fn new(ceilings: Vec<T>, own: T) -> Self {
        Self { ceilings, own }
    }

    /// Every layer, the outermost ceiling first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.ceilings.iter().chain(std::iter::once(&self.own))
    }

    /// How many there are: at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ceilings.len().saturating_add(1)
    }

    /// Makes something of each layer.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> Layers<U> {
        Layers {
            ceilings: self.ceilings.iter().map(&make).collect(),
            own: make(&self.own),
        }
    }

    /// Makes something of each layer, unless one fails.
    ///
    /// # Errors
    /// The first one's.
    pub fn try_map<U, E>(&self, make: impl Fn(&T) -> Result<U, E>) -> Result<Layers<U>, E> {
        Ok(Layers {
            ceilings: self.ceilings.iter().map(&make).collect::<Result<_, _>>()?,
            own: make(&self.own)?,
        })
    }

    /// Joins all layers into one value, the innermost first, by something that never gives more than either.
    pub fn narrow<U>(&self, own: impl Fn(&T) -> U, narrow: impl Fn(U, &T) -> U) -> U {
        self.ceilings.iter().rev().fold(own(&self.own), narrow)
    }
}
